// Reads formulas as a JSON list, and prints those that MathJax refuses, with its reason.
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
const strip = (text) => text.replace(/^\\[(\[]/, "").replace(/\\[)\]]$/, "");

require("mathjax/es5/node-main.js")
  .init({ loader: { load: ["input/tex-full", "output/svg"] }, tex: { packages: { "[-]": ["noundefined", "noerrors"] }, formatError: (jax, error) => { throw error; } } })
  .then((MathJax) => {
    const refused = {};
    for (const formula of formulas) {
      try {
        const rendered = MathJax.tex2svg(strip(formula), { display: formula.startsWith("\\[") });
        if (MathJax.startup.adaptor.outerHTML(rendered).includes("merror")) refused[formula] = "an error";
      } catch (error) {
        refused[formula] = error.message;
      }
    }
    console.log(JSON.stringify(refused));
  });

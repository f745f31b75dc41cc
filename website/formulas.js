// Reads formulas as a JSON list, and prints those that MathJax refuses, with its reason.
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
const strip = (text) => text.replace(/^\\[(\[]/, "").replace(/\\[)\]]$/, "");

const fail = (jax, error) => {
  throw error;
};
const tex = { packages: { "[-]": ["noundefined", "noerrors"] }, formatError: fail };

require("mathjax")
  .init({ loader: { load: ["input/tex"] }, tex })
  .then(async (MathJax) => {
    const refused = {};
    for (const formula of formulas) {
      try {
        await MathJax.tex2mmlPromise(strip(formula), { display: formula.startsWith("\\[") });
      } catch (error) {
        refused[formula] = error.message;
      }
    }
    console.log(JSON.stringify(refused));
  });

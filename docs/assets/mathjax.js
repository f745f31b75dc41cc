// Formulas stand in elements of the class arithmatex; nothing else is looked at. A long one goes on in a new line.
window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]], processEscapes: true },
  loader: { paths: { fonts: "[mathjax]" } },
  output: { fontPath: "[fonts]/%%FONT%%-font", displayOverflow: "linebreak", scale: 0.95 },
  options: {
    ignoreHtmlClass: ".*|",
    processHtmlClass: "arithmatex",
    enableMenu: false,
    menuOptions: { settings: { enrich: false, speech: false, braille: false } },
  },
};

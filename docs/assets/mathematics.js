// typeset what the builder marks, on every page that the theme shows
const typeset = () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const [, open, text] = element.textContent.match(/^\s*\\([([])([\s\S]*)\\[)\]]\s*$/) || [];
    if (text) katex.render(text, element, { displayMode: open === "[", throwOnError: false });
  }
};
document.addEventListener("DOMContentLoaded", typeset);

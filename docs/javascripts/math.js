// Renders what pymdownx.arithmatex marked. Without the KaTeX scripts (offline) the TeX text stays as it is.
document$.subscribe(({ body }) => {
  if (typeof renderMathInElement === "undefined") return
  for (const element of body.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, {
      delimiters: [
        { left: "\\(", right: "\\)", display: false },
        { left: "\\[", right: "\\]", display: true },
      ],
      throwOnError: false,
    })
  }
})

"use strict";
// Tables sort by a column and show the pairs of a class; a tap tells what hovering does. Without this script the page
// is whole, its tables in their own order.
{
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  const NUMBER = /^([÷×]?)([-−]?[\d.,]+)(?:·10(⁻?)([⁰¹²³⁴-⁹]+))?%?$/;

  // [0, number], [1, words] or [2, ""] where nothing was measured: they sort in this order.
  function value(cell) {
    const copy = cell.cloneNode(true);
    for (const extra of copy.querySelectorAll("small")) extra.remove();
    const text = copy.textContent.trim();
    if (text === "" || text === "n/a") return [2, ""];
    const found = NUMBER.exec(text);
    if (!found) return [1, text];
    const [, sign, digits, minus, power] = found;
    const exponent = [...(power || "⁰")].map((digit) => SUPERSCRIPTS.indexOf(digit)).join("");
    const number = Number(digits.replace("−", "-").replaceAll(",", "") + "e" + (minus ? "-" : "") + exponent);
    return [0, sign === "×" ? 1 / number : number];
  }

  function compare([kind, first], [otherKind, second], direction) {
    if (kind === 2 || otherKind === 2) return kind - otherKind;
    if (kind !== otherKind) return direction * (kind - otherKind);
    return direction * (kind ? first.localeCompare(second, undefined, { numeric: true }) : first - second);
  }

  // Headings of a single column, or of one beside its bars, each with the column's place in a row.
  function columns(head) {
    const taken = Array.from(head.rows, () => []);
    const found = [];
    for (const [at, row] of Array.from(head.rows).entries()) {
      let column = 0;
      for (const cell of row.cells) {
        while (taken[at][column]) column++;
        for (let down = 0; down < cell.rowSpan; down++)
          for (let across = 0; across < cell.colSpan; across++) taken[at + down][column + across] = true;
        column += cell.colSpan;
        const ends = at + cell.rowSpan === head.rows.length;
        if (cell.textContent.trim() && (ends || cell.colSpan === 1)) found.push([cell, column - 1]);
      }
    }
    return found;
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = columns(table.tHead);
    for (const [heading, column] of headings) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const order = NEXT[heading.getAttribute("aria-sort") || "none"];
        for (const [other] of headings) other.removeAttribute("aria-sort");
        if (order !== "none") heading.setAttribute("aria-sort", order);
        const direction = order === "descending" ? -1 : 1;
        const keys = new Map(original.map((row) => [row, value(row.cells[column])]));
        const sorted = [...original].sort((a, b) => compare(keys.get(a), keys.get(b), direction));
        body.append(...(order === "none" ? original : sorted));
      });
    }
  }

  function makeChoice(text, names) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.append(new Option("any", ""), ...names.map((name) => new Option(name, name)));
    label.append(text, select);
    return [label, select];
  }

  // Two classes to choose above a table of pairs; a cell of the picture beside it chooses both.
  function makeFilter(table) {
    const rows = [...table.tBodies[0].rows];
    const classes = new Map(
      rows.map((row) => [row, [...row.cells].slice(0, 2).map((cell) => cell.title || cell.textContent)]),
    );
    const names = [...new Set([...classes.values()].flat())];
    names.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const [[firstLabel, first], [secondLabel, second]] = ["pairs of ", "and "].map((text) => makeChoice(text, names));
    const count = document.createElement("output");
    const controls = document.createElement("p");
    controls.className = "filter";
    controls.append(firstLabel, secondLabel, count);
    table.closest(".scroll").before(controls);
    const cells = table.closest(".pair").querySelectorAll(".tips [data-pair]");

    function apply() {
      const chosen = [first.value, second.value].filter(Boolean);
      for (const row of rows) row.hidden = !chosen.every((name) => classes.get(row).includes(name));
      const shown = new Set(rows.filter((row) => !row.hidden).map((row) => row.dataset.pair));
      for (const cell of cells) cell.classList.toggle("chosen", chosen.length > 0 && shown.has(cell.dataset.pair));
      count.textContent = `${shown.size} of ${rows.length} shown`;
    }
    for (const select of [first, second]) select.addEventListener("change", apply);
    for (const cell of cells)
      cell.addEventListener("click", () => {
        const row = rows.find((candidate) => candidate.dataset.pair === cell.dataset.pair);
        if (!row) return;
        [first.value, second.value] = classes.get(row);
        apply();
      });
    apply();
  }

  for (const table of document.querySelectorAll("table")) {
    if (table.tHead && table.tBodies[0].rows.length > 1) {
      if (table.matches(".pairs")) makeFilter(table);
      makeSortable(table);
    }
  }

  const told = document.createElement("p");
  told.className = "told";
  told.setAttribute("role", "status");
  document.body.append(told);
  document.addEventListener("click", (event) => {
    told.textContent = event.target.closest(".tips > *")?.textContent ?? "";
  });
}

"use strict";
// Sort the rows of a table by a column: numbers first from large to small, texts from a to z; again to turn it round.
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = head.cellIndex;
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      const text = cell.textContent.trim();
      return { row, text, number: parseFloat(cell.dataset.value ?? text) };
    });
    const numeric = column > 0 && rows.some((one) => !Number.isNaN(one.number));
    const before = head.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : !numeric;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    rows.sort((a, b) => {
      if (!numeric) return (ascending ? 1 : -1) * a.text.localeCompare(b.text, undefined, { numeric: true });
      const missing = Number.isNaN(a.number) - Number.isNaN(b.number);
      return missing || (ascending ? 1 : -1) * (a.number - b.number) || 0;
    });
    body.append(...rows.map((one) => one.row));
  });
}

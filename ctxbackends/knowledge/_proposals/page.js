"use strict";
// The page is complete without this: it hides the rows that the filter does not choose.
const form = document.getElementById("filter");
const rows = [...document.querySelectorAll("article")];
const texts = new Map(rows.map((row) => [row, row.textContent.replace(/\s+/g, " ").toLowerCase()]));

function update() {
  const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const isChosen =
      (!form.elements.kind.value || row.dataset.kind === form.elements.kind.value) &&
      (!form.elements.state.value || row.dataset.state === form.elements.state.value) &&
      words.every((word) => texts.get(row).includes(word));
    row.hidden = !isChosen;
    count += isChosen;
  }
  for (const section of document.querySelectorAll("section.rows")) {
    section.hidden = !section.querySelector("article:not([hidden])");
  }
  form.elements.count.value = `${count} of ${rows.length} shown`;
}

form.hidden = false;
form.addEventListener("input", update);
form.addEventListener("submit", (event) => event.preventDefault());
update();

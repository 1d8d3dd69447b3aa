"use strict";
/* What works without a picture: tables that sort, commands that are copied. */
(() => {
  const compare = (one, other, down) => {
    if (one === "" || other === "") return (one === "") - (other === ""); // no value: last, whatever the direction
    const [a, b] = [Number(one), Number(other)];
    const order = Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other, undefined, { numeric: true }) : a - b;
    return down ? -order : order;
  };
  const sort = (heading) => {
    const [head, body] = [heading.parentElement, heading.closest("table").tBodies[0]];
    const index = [...head.children].indexOf(heading);
    const before = heading.getAttribute("aria-sort");
    const down = before === "none" ? index > 0 : before === "ascending"; // the largest number first, texts from A
    [...head.children].forEach((one) => one.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.children[index].dataset.value;
    body.append(...[...body.rows].sort((one, other) => compare(value(one), value(other), down)));
  };
  document.querySelectorAll("th[aria-sort] button").forEach((button) => button.addEventListener("click", () => sort(button.parentElement)));

  const copied = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch { // not allowed to a page from disk in some browsers
      getSelection().selectAllChildren(code);
      return document.execCommand("copy");
    }
  };
  document.querySelectorAll(".copy").forEach((button) =>
    button.addEventListener("click", async () => {
      button.textContent = (await copied(button.parentElement.querySelector("code"))) ? "Copied" : "Press Ctrl-C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    }),
  );
})();

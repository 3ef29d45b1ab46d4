// The problems of the page's layout at its present width, a line for each.
(() => {
  const root = document.documentElement;
  const width = root.clientWidth;
  const problems = [];
  if (root.scrollWidth > width) problems.push(`the page is ${root.scrollWidth} px wide`);

  const article = document.querySelector("article") ?? document.body;
  const scrolls = (element) => {
    for (let one = element; one && one !== article.parentElement; one = one.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(one).overflowX)) return true;
    return false;
  };
  const describe = (element) => `<${element.tagName.toLowerCase()}> ${element.textContent.trim().slice(0, 50)}`;
  const isBeyond = (box) => box.width > 0 && box.height > 0 && Math.max(box.right, -box.left) > width + 1;
  let last = null; // what is in it is not named again
  for (const element of article.querySelectorAll("*")) {
    if (last?.contains(element)) continue;
    const isCut = getComputedStyle(element).overflowX !== "visible" && !scrolls(element);
    if (isCut && element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1)
      problems.push(`cut off: ${describe(element)}`);
    else if (isBeyond(element.getBoundingClientRect()) && !scrolls(element))
      problems.push(`beyond the edge: ${describe(element)}`);
    else continue;
    last = element;
  }

  // A line may break at a space, and after a hyphen, a dash or a slash.
  for (const cell of article.querySelectorAll("td, th")) {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode())
      for (const word of text.data.matchAll(/[^\s\u200b/\u2013\u2014-]{2,}/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].filter((box) => box.width > 0).map((box) => Math.round(box.top)));
        if (lines.size > 1) problems.push(`a table breaks inside the word ${word[0]}`);
      }
  }
  return [...new Set(problems)];
})()

// Looks at the page of a run in a real browser: node report.mjs CHROMIUM MIXED.html HOSTILE.html SCREENSHOTS
//
// The first page is an ordinary one, in the second every text that a guest, a cluster or a file could write is hostile. Each
// check that does not hold is printed, and the exit code is 1.
import { chromium } from "playwright-core";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [executablePath, mixed, hostile, shots] = process.argv.slice(2);
const WIDTHS = [375, 800, 1440];
const SCHEMES = ["light", "dark"];

let failures = 0;
const check = (holds, what) => {
  if (!holds) {
    failures += 1;
    console.log("does not hold: " + what);
  }
};

// Containers rarely allow Chromium's own sandbox; the page comes from this test.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

// Opens a page and notes everything that a quiet page does not do.
const visit = async (file, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const url = pathToFileURL(file).href;
  const noted = [];
  page.on("console", (message) => noted.push("console: " + message.text()));
  page.on("pageerror", (error) => noted.push("error: " + error.message));
  page.on("dialog", (dialog) => { noted.push("dialog: " + dialog.message()); void dialog.dismiss(); });
  page.on("request", (request) => { if (request.url() !== url) { noted.push("request: " + request.url().slice(0, 200)); } });
  page.on("popup", () => noted.push("popup"));
  await page.addInitScript(() => {
    globalThis.violations = [];
    addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(event.violatedDirective + " " + event.sample));
  });
  await page.goto(url);
  const quiet = async (name) => {
    const violations = options.javaScriptEnabled === false ? [] : await page.evaluate(() => globalThis.violations);
    check(noted.length === 0, name + " is quiet: " + noted.slice(0, 5).join(" | "));
    check(violations.length === 0, name + " breaks its policy: " + violations.slice(0, 5).join(" | "));
  };
  return { page, quiet, close: () => context.close() };
};

// Relative luminance and contrast as WCAG defines them, for every text that can be seen.
const poorContrast = (page) => page.evaluate(() => {
  const parse = (text) => {
    const numbers = (text.match(/-?[\d.]+(e-?\d+)?/g) ?? []).map(Number);
    if (text.startsWith("color(srgb")) { return [...numbers.slice(0, 3).map((part) => part * 255), numbers[3] ?? 1]; }
    return [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const known = new Map([[null, [255, 255, 255, 1]]]);
  const ground = (element) => {
    if (!known.has(element)) {
      known.set(element, over(parse(getComputedStyle(element).backgroundColor), ground(element.parentElement)));
    }
    return known.get(element);
  };
  const poor = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode() && seen < 2500) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("svg, script, style")) { continue; }
    seen += 1;
    const style = getComputedStyle(element);
    const back = ground(element);
    const [a, b] = [luminance(over(parse(style.color), back)), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) { poor.add(element.tagName + "." + element.className + " " + ratio.toFixed(2)); }
  }
  return { poor: [...poor], seen };
});

// Every width in both schemes: nothing sticks out, everything can be read, and a picture of it.
for (const colorScheme of SCHEMES) {
  for (const width of WIDTHS) {
    const name = width + " " + colorScheme;
    const { page, quiet, close } = await visit(mixed, { viewport: { width, height: 1000 }, colorScheme });
    await page.screenshot({ path: `${shots}/report-${width}-${colorScheme}.png` });
    await page.evaluate(() => { for (const one of document.querySelectorAll("details")) { one.open = true; } });
    const out = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(out <= 0, name + ": the page is " + out + " pixels too wide");
    const { poor, seen } = await poorContrast(page);
    check(seen > 500, name + ": only " + seen + " texts were looked at");
    check(poor.length === 0, name + ": contrast of " + poor.slice(0, 8).join(", "));
    await quiet(name);
    await close();
  }
}

// What it shows.
{
  const { page, quiet, close } = await visit(mixed);
  check(await page.locator("h1").textContent() === "2 of 6 probes fail", "the headline");
  check(await page.locator("#next li").count() === 2, "what to do next names the two that failed");
  check(await page.locator("article.probe").count() === 6, "one part for each probe");
  check(await page.getByText("passed after fail").count() === 1, "a pass after a fail is shown as such");
  check(await page.locator(".computed").count() > 0 && await page.locator(".door").count() > 0, "what the probe computed is set apart from facts of the door");
  check(await page.locator(".lane").count() >= 7 && await page.locator(".lane-bars rect").count() > 20, "the timeline");
  const failed = page.locator("article.edge-fail details.case[open] > summary .chip.fail");
  check(await failed.count() >= 2, "cases that failed are open");
  for (const [selector, least] of [["main", 1], ["nav[aria-label]", 1], ["header.top", 1], ["footer", 1], ["h1", 1], ["h2", 4]]) {
    check(await page.locator(selector).count() >= least, "landmark " + selector);
  }
  // No heading is skipped.
  const levels = await page.evaluate(() => Array.from(document.querySelectorAll("h1,h2,h3,h4,h5"), (one) => Number(one.tagName[1])));
  check(levels.every((level, at) => at === 0 ? level === 1 : level <= levels[at - 1] + 1), "headings go down one step at a time");
  const unnamed = await page.evaluate(() => Array.from(document.querySelectorAll("button, input, select, svg[role=img]"))
    .filter((one) => !one.textContent.trim() && !one.getAttribute("aria-label") && !one.closest("label")).length);
  check(unnamed === 0, unnamed + " controls have no name");
  await quiet("the page");
  await close();
}

// The switch, against the system and back.
{
  const { page, quiet, close } = await visit(mixed, { colorScheme: "light" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const seen = [await ground()];
  const button = page.locator("#theme");
  for (const word of ["Light", "Dark", "Auto"]) {
    await button.click();
    check((await button.textContent()).includes(word), "the switch says " + word);
    seen.push(await ground());
  }
  check(seen[0] === seen[1] && seen[2] !== seen[0] && seen[3] === seen[0], "the switch changes colours: " + seen.join(" "));
  await page.emulateMedia({ colorScheme: "dark" });
  check(await ground() === seen[2], "the page follows the system");
  await quiet("the switch");
  await close();
}

// By keyboard alone.
{
  const { page, quiet, close } = await visit(mixed);
  const focused = () => page.evaluate(() => document.activeElement.className + "#" + document.activeElement.id + " " + document.activeElement.tagName);
  await page.keyboard.press("Tab");
  check((await focused()).startsWith("skip"), "the first stop is the link to the report: " + await focused());
  await page.keyboard.press("Enter");
  check(await page.evaluate(() => location.hash) === "#main", "it leads to the report");
  let reached = false;
  for (let stop = 0; stop < 200 && !reached; stop += 1) {
    await page.keyboard.press("Tab");
    reached = await page.evaluate(() => document.activeElement.matches("details.case > summary"));
  }
  check(reached, "the keyboard reaches a case");
  const open = () => page.evaluate(() => document.activeElement.parentElement.open);
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  check(ring !== "none", "what has the focus can be seen");
  const before = await open();
  await page.keyboard.press("Enter");
  check(await open() === !before, "Enter folds a case");
  await page.keyboard.press("Space");
  check(await open() === before, "Space folds it back");
  await quiet("the keyboard");
  await close();
}

// The conversation: closed, found by a link, filtered.
{
  const { page, quiet, close } = await visit(mixed);
  const article = page.locator("article.probe").first();
  const calls = article.locator(".calls > li");
  const total = await calls.count();
  check(total > 100, "the conversation has its calls: " + total);
  check(!await calls.first().isVisible(), "it is folded away at first");
  await article.locator(".talk > summary").click();
  check(await calls.first().isVisible(), "and opens");
  const search = article.locator("form.filter input");
  const visible = () => article.evaluate((one) => Array.from(one.querySelectorAll(".calls > li")).filter((call) => call.checkVisibility()).length);
  const said = () => article.locator("form.filter output").textContent();
  await search.fill("create resourceclaims");
  const found = await visible();
  check(found > 0 && found < total, "the search filters: " + found + " of " + total);
  check(await said() === found + " of " + total + " calls", "and says how many: " + await said());
  const wrong = await article.evaluate((one) => Array.from(one.querySelectorAll(".calls > li")).filter((call) => call.checkVisibility() && !call.textContent.includes("create")).length);
  check(wrong === 0, "and shows only what fits");
  await search.fill("");
  check(await visible() === total, "an empty search shows all");
  await article.locator("select[name=kind]").selectOption("l");
  const live = await visible();
  check(live > 0 && live < total, "the filter by kind: " + live);
  await article.locator("select[name=case]").selectOption({ index: 1 });
  const both = await visible();
  check(both > 0 && both < live, "and by case: " + both);
  const target = article.locator(".case a[href^='#']").last();
  const hash = await target.getAttribute("href");
  await article.evaluate((one) => { for (const found of one.querySelectorAll("details.case")) { found.open = true; } });
  await target.click();
  check(await page.locator(hash).isVisible(), "a link to a call reveals it: " + hash);
  await page.locator("#close-all").click();
  check(await page.locator("details.case[open]").count() === 0, "all cases close");
  await page.locator("#open-all").click();
  check(await page.locator("details.case:not([open])").count() === 0, "all cases open");
  await quiet("the conversation");
  await close();
}

// Without script, and on paper.
{
  const { page, close } = await visit(mixed, { javaScriptEnabled: false });
  check(await page.locator("h1").isVisible(), "it can be read without script");
  check(!await page.locator("#theme").isVisible() && !await page.locator("form.filter").first().isVisible(), "what needs script is not there");
  const one = page.locator("details.case:not([open])").first();
  await one.locator("summary").first().click();
  check(await page.locator("article .case-body:visible").count() > 0, "a case opens without script");
  await page.emulateMedia({ media: "print" });
  check(!await page.locator(".side").isVisible() && await page.locator("h1").isVisible(), "it prints without its tools");
  await close();
}

// The hostile page: the same parts, and none of its texts did anything.
{
  const parts = (page) => page.evaluate(() => {
    const count = {};
    for (const one of document.querySelectorAll("*")) { count[one.tagName] = (count[one.tagName] ?? 0) + 1; }
    return count;
  });
  const { page, quiet, close } = await visit(hostile);
  await page.evaluate(() => { for (const one of document.querySelectorAll("details")) { one.open = true; } });
  await page.mouse.move(700, 500);
  for (let step = 0; step < 20; step += 1) { await page.keyboard.press("PageDown"); }
  await page.locator(".talk form.filter input").first().fill("<script>");
  check(await page.evaluate(() => globalThis.owned) === undefined, "a hostile text was run");
  check((await page.title()).includes("Karat run"), "the title is ours: " + await page.title());
  const count = await parts(page);
  check(count.SCRIPT === 1 && count.STYLE === 1, "one script and one style: " + count.SCRIPT + ", " + count.STYLE);
  for (const tag of ["IMG", "IFRAME", "OBJECT", "EMBED", "LINK", "BASE", "USE"]) { check(!count[tag], "there is an element " + tag); }
  const strange = await page.evaluate(() => Array.from(document.querySelectorAll("*"))
    .flatMap((one) => Array.from(one.attributes)).filter((one) => one.name.startsWith("on") || one.name === "style" || one.name === "src" || one.name === "action").length);
  check(strange === 0, strange + " attributes that act");
  const links = await page.evaluate(() => Array.from(document.querySelectorAll("a")).filter((one) => !one.getAttribute("href").startsWith("#")).length);
  check(links === 0, links + " links lead away");
  check(readFileSync(hostile, "utf8").includes("owned=1"), "the texts are in the page at all");
  const out = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(out <= 0, "hostile text makes the page " + out + " pixels too wide");
  await quiet("the hostile page");
  await close();
}

await browser.close();
console.log(failures === 0 ? "everything holds" : failures + " checks do not hold");
process.exit(failures === 0 ? 0 : 1);

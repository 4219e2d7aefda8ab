// The page of `syncagent serve`: a client of its API, with the token of who signed in.
//
// Names, labels and metadata are other people's. They become text nodes (`h`, `shown`) or attributes that hold plain
// text, never HTML; the page's Content-Security-Policy has the browser insist on that.

const API = "/api/v1";
const PAGE = 60; // items a request
const MAX_BYTES = 64 * 2 ** 20; // of one item, to be held in memory
const MAX_TEXT = 2 ** 18; // of a text that is shown
const MAX_LABELS = 5000; // annotations of one item, or of one page of items
const MASK_SIDE = 1024; // pixels of a mask as it is drawn
const THUMBNAILS = 4; // asked for at once; the server makes two at a time

// -- elements and texts ---------------------------------------------------------------------------

function fill(node, properties, inside) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...inside.flat(2).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}
const h = (name, properties = {}, ...inside) => fill(document.createElement(name), properties, inside);
const svg = (name, properties = {}, ...inside) => fill(document.createElementNS("http://www.w3.org/2000/svg", name), properties, inside);

// Control characters, lone surrogates, and what turns the direction of text or takes no room: a key may hold any of
// them, and may then look like another. Joiners stay, emoji are made with them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]|\p{Cs}/gu;
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const escaped = (one) => SHORT[one] ?? `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
const plain = (text) => String(text).replace(UNSEEN, escaped);
const lines = (text) => text.replaceAll("\r\n", "\n").replace(UNSEEN, (one) => (one === "\n" || one === "\t" ? one : escaped(one)));

function shown(text) {
  const told = String(text), node = h("bdi", { dir: "ltr" });
  let from = 0;
  for (const found of told.matchAll(UNSEEN)) {
    node.append(told.slice(from, found.index), h("span", { class: "unseen" }, escaped(found[0])));
    from = found.index + found[0].length;
  }
  node.append(told.slice(from));
  return node;
}

const count = (number) => Number(number ?? 0).toLocaleString("en-US");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
function bytes(size) {
  const power = size < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(size) / 10));
  const value = size / 1024 ** power;
  return `${power && value < 10 ? value.toFixed(1) : Math.round(value)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}
const when = (time) => time && h("time", { datetime: time, title: new Date(time).toLocaleString() }, `${time.slice(0, 19).replace("T", " ")}Z`);
const quiet = (...inside) => h("p", { class: "quiet" }, ...inside);

function alarm(error, again) {
  return h("div", { class: "alarm", role: "alert" }, shown(error.message),
    again && h("button", { type: "button", click: again }, "Try again"));
}

function table(heads, rows) {
  const cell = (name, [kind, inside]) => h(name, { class: kind, scope: name === "th" && "col" }, inside);
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((one) => cell("th", one)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((one, n) => cell("td", [heads[n][0], one])))))));
}

// -- the session and the API ----------------------------------------------------------------------

// In memory and in this tab's sessionStorage: gone with the tab, and never sent to another.
let session = null;
try {
  session = JSON.parse(sessionStorage.getItem("session"));
} catch { /* none, or a browser that keeps none */ }

class Problem extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    Object.assign(this, { status, wait });
  }
}
class Ended extends Error {} // the session, or the view that asked: nobody is left to be told
const over = (error) => error instanceof Ended || error.name === "AbortError";

function keep(made) {
  session = made;
  try {
    if (made) sessionStorage.setItem("session", JSON.stringify(made));
    else sessionStorage.removeItem("session");
  } catch { /* then until the next reload */ }
}

async function send(path, options) {
  return fetch(path, { cache: "no-store", credentials: "omit", redirect: "manual", ...options })
    .catch((error) => { throw over(error) ? error : new Problem(0, "the server does not answer"); });
}

async function problem(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem(answer.status, told.message ?? `the server answers ${answer.status}`, Number(answer.headers.get("Retry-After")));
}

async function token(body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await send("/token?default", { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw await problem(answer);
  return answer.json();
}

let renewing = null;
function renew(old) {
  renewing ??= token({ type: "refresh_token", refresh_token: old.refresh }).then((told) => {
    // Whoever signed out meanwhile stays so.
    if (session === old) keep({ ...old, token: told.id_token, until: Date.now() + told.expires_in * 1000 });
  }, (error) => {
    if (error.status !== 401) throw error;
    if (session === old) leave("Your session has ended. Sign in again.");
  }).finally(() => { renewing = null; });
  return renewing;
}

async function call(path, { body, signal, cache, headers } = {}) {
  for (let attempt = 0; ; attempt++) {
    if (session && session.until - Date.now() < 60_000) await renew(session);
    if (!session) throw new Ended();
    const mine = session, given = { ...headers, Authorization: `Bearer ${mine.token}` };
    const options = { signal, headers: given, ...(cache && { cache }) };
    if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) }), (given["Content-Type"] = "application/json");
    const answer = await send(API + path, options);
    if (!session) throw new Ended();
    if (answer.status === 401) {
      if (attempt) leave("Your session has ended. Sign in again.");
      else if (session === mine) await renew(mine);
    } else if (answer.type === "opaqueredirect") {
      throw new Problem(307, "the server hands out this bucket's files by signed URL, which this page does not follow");
    } else if (answer.ok) return answer;
    else throw await problem(answer);
  }
}
const json = async (path, options) => (await call(path, options)).json();
const at = (...parts) => parts.map((one) => `/${encodeURIComponent(one)}`).join("");

// -- what the views ask for -----------------------------------------------------------------------

const known = new Map(); // of this session: a dataset's label colours, attribute titles

async function ontologyOf(dataset, signal) {
  if (!known.has(dataset.id)) {
    const told = { colors: new Map(), titles: new Map() };
    const walk = (nodes, above) => {
      for (const { value, children } of nodes ?? []) {
        const tag = above ? `${above}.${value?.tag}` : String(value?.tag);
        told.colors.set(tag, /^#[0-9a-f]{6}$/i.test(value?.color) ? value.color : colorOf(tag));
        walk(children, tag);
      }
    };
    try {
      const recipe = dataset.metadata.system.recipes[0];
      const ontology = recipe && (await json(at("recipes", recipe), { signal })).ontologyIds?.[0];
      const found = ontology && (await json(at("ontologies", ontology), { signal }));
      walk(found?.roots, "");
      for (const one of found?.metadata?.attributes ?? []) told.titles.set(String(one.key), String(one.title ?? one.key));
    } catch (error) {
      if (error.status !== 404) throw error; // a recipe may be gone; labels have colours without
    }
    known.set(dataset.id, told);
  }
  return known.get(dataset.id);
}

// The same colour that the server gives a new label.
function colorOf(tag) {
  let number = 0;
  for (const one of tag) number = (number * 31 + one.codePointAt(0)) & 0xffffff;
  return `#${number.toString(16).padStart(6, "0")}`;
}

// The filters of a dataset stand in the URL: `dir`, `deep`, `name`, `type`, `label`, `annotated`, `sort`, `view`.
function conditions(params) {
  const get = (name) => params.get(name)?.trim() ?? "", all = [{ hidden: false }, { type: "file" }];
  const within = (text) => (text.includes("*") ? text : `*${text}*`);
  const dir = params.get("dir") ?? "/";
  if (params.get("deep") === "no") all.push({ dir });
  else if (dir !== "/") all.push({ filename: `${dir}/**` });
  if (get("name")) all.push({ filename: within(get("name")) });
  if (get("type")) all.push({ "metadata.system.mimetype": get("type").includes("/") ? get("type") : within(get("type")) });
  if (get("annotated")) all.push({ annotated: get("annotated") !== "no" });
  const join = get("label") ? { on: { resource: "annotations" }, filter: { label: get("label") } } : undefined;
  return { all, join };
}

// A page of items after (or before) one of them. There is no offset: items that come or go meanwhile move nothing.
async function find(dataset, params, { after, backwards = false, size = PAGE, signal } = {}) {
  const { all, join } = conditions(params);
  const newest = params.get("sort") === "newest", field = newest ? "id" : "filename", down = newest !== backwards;
  const changed = params.get("annotated") === "changed"; // the API has no such condition: looked at here
  const found = [];
  for (let asked = 0; ; asked++) {
    const filter = { $and: after ? [...all, { [field]: { [down ? "$lt" : "$gt"]: after[field] } }] : all };
    const sort = { [field]: down ? "descending" : "ascending" };
    const query = { resource: "items", filter, join, sort, page: 0, pageSize: changed ? 1000 : size };
    const told = await json(at("datasets", dataset, "query"), { body: query, signal });
    found.push(...(changed ? told.items.filter((one) => one.changedSinceAnnotated) : told.items));
    after = told.items.at(-1) ?? after;
    const more = told.totalItemsCount > told.items.length;
    if (!changed || !more || found.length >= size || asked === 9) return { found, total: changed ? null : told.totalItemsCount, more, after };
  }
}

async function annotationsOf(dataset, items, signal) {
  const found = [];
  for (let more = items.length > 0; more && found.length < MAX_LABELS; ) {
    const $and = [{ itemId: { $in: items } }, ...(found.length ? [{ id: { $gt: found.at(-1).id } }] : [])];
    const query = { resource: "annotations", filter: { $and }, sort: { id: "ascending" }, page: 0, pageSize: 1000 };
    const told = await json(at("datasets", dataset, "query"), { body: query, signal });
    found.push(...told.items);
    more = told.items.length > 0 && told.totalItemsCount > told.items.length;
  }
  return found;
}

function bucketOf(driver) {
  if (!driver) return "";
  const scheme = { s3: "s3://", gcs: "gs://", azureblob: "az://", file: "file://" }[driver.type] ?? `${driver.type}://`;
  return [scheme + (driver.bucketName ?? driver.bucket ?? driver.containerName ?? ""), driver.path].filter(Boolean).join("/");
}

const PICTURE = /^image\/(jpeg|png|webp|gif|bmp|tiff)$/;
const pictured = (item) => PICTURE.test(item.metadata.system.mimetype) && item.metadata.system.size <= MAX_BYTES;
const share = (found) => (found.itemsCount ? Math.min(1, found.annotated / found.itemsCount) : 0);
const percent = (part) => (part > 0 && part < 0.01 ? "<1 %" : `${Math.floor(part * 100)} %`);

// -- views ----------------------------------------------------------------------------------------

const main = document.getElementById("main");
let current = null; // the view that is seen
let kept = null; // a dataset's, while one of its items is seen: coming back finds it as it was

class View {
  constructor() {
    this.node = h("div");
    this.stop = new AbortController();
    this.signal = this.stop.signal;
    this.urls = new Set();
  }

  url(blob) {
    const made = URL.createObjectURL(blob);
    this.urls.add(made);
    return made;
  }

  revoke(url) {
    URL.revokeObjectURL(url);
    this.urls.delete(url);
  }

  dispose() {
    this.stop.abort();
    for (const url of [...this.urls]) this.revoke(url);
  }

  // Put what `load` returns in place, or what went wrong.
  async put(place, what, load) {
    if (!place.hasChildNodes()) place.append(quiet(`Loading ${what} …`));
    try {
      const made = await load();
      if (!this.signal.aborted) place.replaceChildren(...[made].flat());
    } catch (error) {
      if (over(error) || this.signal.aborted) return;
      if (!(error instanceof Problem)) console.error(error);
      place.replaceChildren(alarm(error, () => { place.replaceChildren(); this.put(place, what, load); }));
    }
  }

  heading(text, ...trail) {
    document.title = text ? `${plain(text)} · syncagent` : "syncagent";
    document.getElementById("trail").replaceChildren(...trail.map((one) => h("span", {}, one)));
    return h("h1", { tabindex: -1 }, shown(text));
  }
}

class SignIn extends View {
  constructor(message) {
    super();
    const said = h("p", { class: message ? "alarm" : "", role: "alert" }, message ?? "");
    const email = h("input", { id: "user", type: "text", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
    const password = h("input", { id: "password", type: "password", autocomplete: "current-password", required: true });
    const button = h("button", { type: "submit", class: "first" }, "Sign in");
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      said.replaceChildren();
      said.className = "";
      try {
        const told = await token({ type: "user_credentials", username: email.value, password: password.value });
        keep({ email: email.value.trim(), token: told.id_token, refresh: told.refresh_token, until: Date.now() + told.expires_in * 1000 });
        route();
      } catch (error) {
        const text = { 401: "Wrong email address or password.", 429: `Too many wrong passwords. Try again in ${plural(Math.ceil((error.wait || 60) / 60), "minute")}.` };
        said.className = "alarm";
        said.replaceChildren(text[error.status] ?? plain(error.message));
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    };
    this.node = h("form", { class: "signin", submit }, this.heading("Sign in"), h("label", { for: "user" }, "Email address"), email,
      h("label", { for: "password" }, "Password"), password, button, said);
    this.first = email;
  }
}

class Datasets extends View {
  start() {
    this.node.append(this.heading("Datasets"));
    const place = this.node.appendChild(h("div"));
    return this.put(place, "datasets", async () => {
      const found = [], signal = this.signal;
      for (let page = 0, told = null; !told || told.hasNextPage; page++) {
        told = await json("/datasets/query", { body: { filter: {}, page, pageSize: 1000 }, signal });
        found.push(...told.items);
      }
      const projects = await json("/projects", { signal });
      const told = await Promise.all(projects.map((one) => json(`/drivers?projectId=${encodeURIComponent(one.id)}`, { signal })));
      const drivers = new Map(told.flat().map((one) => [one.id, one])), names = new Map(projects.map((one) => [one.id, one.name]));
      if (!found.length) return quiet("There is no dataset that you may see. ", h("code", {}, "syncagent sync s3://bucket/folder"), " makes one.");
      return table([["", "Dataset"], ["number", "Items"], ["", "Annotated"], ["wide", "Project"], ["wide", "Bucket"]], found.map((one) => [
        [h("a", { href: link("d", one.id) }, shown(one.name)), one.readonly && h("span", { class: "tag" }, "read-only")],
        count(one.itemsCount),
        [h("meter", { value: share(one), "aria-label": "annotated share" }), ` ${percent(share(one))}`],
        shown(names.get(one.projects[0]) ?? ""),
        h("code", {}, shown(bucketOf(drivers.get(one.driver)) || "–")),
      ]));
    });
  }
}

const home = () => h("a", { href: "#/" }, "Datasets");
function tabs(id, here) {
  const tab = (text, name, href) => h("a", { href, "aria-current": name === here && "page" }, text);
  return h("nav", { class: "tabs", "aria-label": "Dataset" }, tab("Items", "items", link("d", id)), tab("Sync", "sync", `${link("d", id)}/sync`));
}

class Dataset extends View {
  constructor(id) {
    super();
    Object.assign(this, { id, items: [], params: null, turn: 0 });
    this.waiting = new Set();
    this.asking = 0;
    this.pictures = new WeakMap();
    this.seen = new IntersectionObserver((entries) => this.scrolled(entries), { rootMargin: "200px" });
    this.end = new IntersectionObserver((entries) => entries.some((one) => one.isIntersecting) && this.more(), { rootMargin: "600px" });
    this.place = h("div", { class: "results" });
    this.status = h("p", { class: "quiet", role: "status" });
    this.button = h("button", { type: "button", click: () => this.more() }, "More");
  }

  start() {
    return this.put(this.node, "the dataset", async () => {
      this.dataset = await json(at("datasets", this.id), { signal: this.signal });
      this.ontology = await ontologyOf(this.dataset, this.signal);
      this.tree = h("details", { class: "tree", open: matchMedia("(min-width: 50rem)").matches }, h("summary", {}, "Folders"));
      this.folders = this.tree.appendChild(h("div"));
      this.form();
      this.update(parse().params);
      this.put(this.folders, "folders", async () => h("ul", {}, this.folder(await json(at("datasets", this.id, "directoryTree"), { signal: this.signal }), true)))
        .then(() => this.point());
      return [h("div", { class: "title" }, this.heading(this.dataset.name, home()), tabs(this.id, "items")),
        h("div", { class: "columns" }, this.tree, h("section", { "aria-label": "Items" }, this.filters, this.status, this.place, this.button))];
    });
  }

  form() {
    const field = (text, name, node) => h("label", {}, text, fill(node, { name }, []));
    const input = (list, hint) => h("input", { type: "search", list, placeholder: hint, spellcheck: "false" });
    const choose = (...options) => h("select", {}, options.map(([value, text]) => h("option", { value }, text)));
    const list = (id, values) => h("datalist", { id }, values.map((value) => h("option", { value })));
    let timer = 0;
    const apply = () => {
      clearTimeout(timer);
      if (current !== this) return; // an item was opened while this waited
      const params = new URLSearchParams([...new FormData(this.filters)].filter(([, value]) => value));
      if (this.params.get("dir")) params.set("dir", this.params.get("dir"));
      if (!this.filters.elements.sub.checked) params.set("deep", "no");
      params.delete("sub");
      history.replaceState(null, "", link("d", this.id, params));
      this.update(params);
    };
    this.filters = h("form", {
      class: "filters", role: "search", submit: (event) => { event.preventDefault(); apply(); }, change: apply,
      input: () => { clearTimeout(timer); timer = setTimeout(apply, 250); },
    },
    field("Name", "name", input(null, "street or *.jpg")), field("Type", "type", input("types", "image/*")), field("Label", "label", input("labels", "any")),
    field("Annotated", "annotated", choose(["", "any"], ["yes", "annotated"], ["no", "not annotated"], ["changed", "changed since"])),
    field("Order", "sort", choose(["", "by path"], ["newest", "newest first"])), field("Show", "view", choose(["", "grid"], ["list", "list"])),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "sub" }), "with subfolders"),
    list("types", ["image/*", "video/*", "audio/*", "text/*", "image/jpeg", "image/png", "application/json"]), list("labels", [...this.ontology.colors.keys()]));
  }

  // A folder, and those below it once it is opened: there may be many thousands.
  folder(node, root = false) {
    const path = node.value.filename, below = h("ul"), open = root || `${this.params.get("dir") ?? ""}/`.startsWith(`${path}/`);
    const name = h("a", { "data-dir": path }, root ? "all folders" : shown(node.value.name));
    if (!node.children.length) return h("li", {}, name);
    const grow = () => {
      if (below.hasChildNodes()) return;
      below.append(...node.children.map((one) => this.folder(one)));
      this.point();
    };
    return h("li", {}, name, h("details", { open, toggle: grow }, h("summary", { "aria-label": `Folders in ${plain(path)}` }), below));
  }

  // Links to folders keep the other filters.
  point() {
    for (const one of this.folders.querySelectorAll("a[data-dir]")) {
      const params = new URLSearchParams(this.params), dir = one.getAttribute("data-dir");
      params.delete("dir");
      if (dir !== "/") params.set("dir", dir);
      one.href = link("d", this.id, params);
      if (dir === (this.params?.get("dir") ?? "/")) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
  }

  update(params) {
    if (!this.filters || this.params?.toString() === params.toString()) return;
    this.params = params;
    for (const one of this.filters.elements) if (one.name && one.name !== "sub" && one.value !== (params.get(one.name) ?? "")) one.value = params.get(one.name) ?? "";
    this.filters.elements.sub.checked = params.get("deep") !== "no";
    this.point();
    this.turn++;
    Object.assign(this, { items: [], cursor: null, total: null, busy: false, rest: true });
    this.status.replaceChildren("Loading items …");
    this.waiting.clear();
    this.seen.disconnect();
    this.list = this.params.get("view") === "list"
      ? table([["path", "Path"], ["number", "Size"], ["wide", "Type"], ["", "Labels"], ["wide", "Modified"]], [])
      : h("ul", { class: "grid" });
    this.place.replaceChildren(this.list);
    this.more();
  }

  add(items) {
    if (this.params.get("view") !== "list") {
      this.list.append(...items.map((one) => this.card(one)));
      return;
    }
    const chips = new Map(items.map((one) => [one.id, h("span", { class: "chips" })]));
    this.list.querySelector("tbody").append(...items.map((one) => h("tr", {}, h("td", { class: "path" }, this.open(one, "", shown(one.filename))),
      h("td", { class: "number" }, bytes(one.metadata.system.size)), h("td", { class: "wide" }, shown(one.metadata.system.mimetype)),
      h("td", {}, chips.get(one.id), stale(one)), h("td", { class: "wide" }, when(one.metadata.system.modified)))));
    const labelled = items.filter((one) => one.annotationsCount).map((one) => one.id);
    annotationsOf(this.id, labelled, this.signal).then((found) => {
      for (const [id, place] of chips) {
        const labels = new Map();
        for (const one of found) if (one.itemId === id) labels.set(one.label, (labels.get(one.label) ?? 0) + 1);
        place.append(...[...labels].map(([label, times]) => chip(label, this.ontology, times > 1 ? ` ${times}` : "")));
      }
    }).catch((error) => over(error) || this.status.append(` (labels: ${plain(error.message)})`));
  }

  open(item, kind, ...inside) {
    return h("a", { class: kind, href: link("i", item.id, this.params), title: plain(item.filename) }, ...inside);
  }

  card(item) {
    const { mimetype, size } = item.metadata.system;
    const picture = h("span", { class: "picture" }, h("span", { class: "kind" }, shown(mimetype), h("br"), bytes(size)));
    if (pictured(item)) {
      this.pictures.set(picture, item);
      this.seen.observe(picture);
    }
    const labels = item.annotationsCount > 0 && h("span", { class: "tag", title: plural(item.annotationsCount, "annotation") }, count(item.annotationsCount));
    return h("li", {}, this.open(item, "card", picture, h("span", { class: "name" }, shown(item.name)), h("span", { class: "tags" }, stale(item), labels)));
  }

  scrolled(entries) {
    for (const one of entries) {
      if (one.isIntersecting) this.waiting.add(one.target);
      else this.waiting.delete(one.target);
    }
    this.ask();
  }

  ask() {
    for (const picture of this.waiting) {
      if (this.asking >= THUMBNAILS) return;
      this.waiting.delete(picture);
      this.seen.unobserve(picture);
      this.asking++;
      // The browser keeps thumbnails, and asks each time whether they are still good, and for this account.
      call(at("items", this.pictures.get(picture).id, "thumbnail"), { signal: this.signal, cache: "no-cache" })
        .then((answer) => answer.blob())
        .then((blob) => {
          const src = this.url(blob), done = () => this.revoke(src);
          picture.replaceChildren(h("img", { src, alt: "", load: done, error: done }));
        })
        .catch(() => {}) // then its type stands there
        .finally(() => { this.asking--; this.ask(); });
    }
  }

  async more() {
    if (this.busy || !this.rest) return;
    const turn = this.turn;
    this.busy = true;
    this.button.disabled = true;
    this.end.disconnect();
    try {
      const told = await find(this.id, this.params, { after: this.cursor, signal: this.signal });
      if (turn !== this.turn) return;
      this.total ??= told.total;
      Object.assign(this, { cursor: told.after, rest: told.more });
      this.items.push(...told.found);
      this.add(told.found);
      this.tell();
      if (told.more) this.end.observe(this.button);
    } catch (error) {
      if (turn !== this.turn || over(error)) return;
      this.status.replaceChildren(alarm(error, () => this.more()));
    } finally {
      if (turn === this.turn) Object.assign(this, { busy: false }), (this.button.disabled = false), (this.button.hidden = !this.rest);
    }
  }

  tell() {
    const here = this.items.length, all = this.dataset.itemsCount;
    const found = this.total === null ? `${count(here)} found${this.rest ? " so far" : ""}` : `${count(this.total)} of ${plural(all, "item")}`;
    this.status.replaceChildren(found, this.total !== null && here < this.total ? `, ${count(here)} shown` : "");
    if (!here && !this.rest) this.place.replaceChildren(quiet(all ? "No item fits these filters." : "This dataset is empty."));
  }

  dispose() {
    super.dispose();
    this.seen.disconnect();
    this.end.disconnect();
  }
}

const stale = (item) => item.changedSinceAnnotated && h("span", { class: "tag warn", title: "The object was overwritten after it was annotated" }, "changed");
function chip(label, ontology, more = "") {
  const swatch = h("span", { class: "swatch" });
  swatch.style.background = ontology.colors.get(label) ?? colorOf(label);
  return h("span", { class: "chip" }, swatch, shown(label), more);
}

// -- one item -------------------------------------------------------------------------------------

const number = (value) => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new TypeError("no coordinate");
  return value;
};
const spot = (point) => `${number(point?.x)} ${number(point?.y)}`;
const rings = (told) => (Array.isArray(told?.[0]) ? told : [told]);
const track = (points, end = "") => `M${points.map(spot).join("L")}${end}`;
const turned = (angle, x, y) => (angle ? { transform: `rotate(${number(angle)} ${x} ${y})` } : {});

// SVG of an annotation's coordinates, in pixels of the upright image. Null for a type that has no place in it.
const SHAPES = {
  box([a, b, angle]) {
    const x = Math.min(number(a.x), number(b.x)), y = Math.min(number(a.y), number(b.y)), width = Math.abs(a.x - b.x), height = Math.abs(a.y - b.y);
    return svg("rect", { x, y, width, height, ...turned(angle, x + width / 2, y + height / 2) });
  },
  segment: (told) => svg("path", { d: rings(told).map((ring) => track(ring, "Z")).join(""), "fill-rule": "evenodd" }),
  polyline: (told) => svg("path", { d: rings(told).map((ring) => track(ring)).join(""), class: "open" }),
  point: (told) => svg("path", { d: `M${spot(told)}h0.001`, class: "dot" }),
  ellipse({ center, rx, ry, angle }) {
    const [cx, cy] = [number(center.x), number(center.y)];
    return svg("ellipse", { cx, cy, rx: number(rx), ry: number(ry), ...turned(angle, cx, cy) });
  },
  cube(told) {
    const corners = ["tl", "tr", "br", "bl"], face = (side) => track(corners.map((one) => told[`${side}_${one}`]), "Z");
    const edges = corners.map((one) => track([told[`front_${one}`], told[`back_${one}`]])).join("");
    return svg("g", {}, svg("path", { d: face("front") }), svg("path", { d: face("back") + edges, class: "open" }));
  },
  note: (told) => SHAPES.box(told.box),
};

// Where an annotation of a video is at a time: as its last key frame before says.
function geometry(one, time, fps) {
  const { frame = 0, endFrame, snapshots_: keys } = one.metadata?.system ?? {};
  if (time === null) return one.coordinates;
  const now = Math.round(time * fps);
  if (now < frame || now > (endFrame ?? Infinity)) return null;
  const last = (keys ?? []).filter((key) => key.frame <= now).sort((a, b) => a.frame - b.frame).at(-1);
  return last?.objectVisible === false ? null : last?.data ?? one.coordinates;
}

// A mask in its label's colour. Images in data: URLs are not allowed to the page; this one is taken apart.
async function mask(told, color) {
  const [, encoded] = /^data:image\/png;base64,([A-Za-z0-9+/=\s]+)$/.exec(told?.data ?? told) ?? [];
  if (!encoded) throw new TypeError("no mask");
  const data = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
  const size = new DataView(data.buffer), [width, height] = [size.getUint32(16), size.getUint32(20)]; // from the PNG's head
  if (width * height > 2 ** 26) throw new TypeError("too large a mask");
  const image = await createImageBitmap(new Blob([data], { type: "image/png" }));
  const scale = Math.min(1, MASK_SIDE / Math.max(width, height)); // an item may have a hundred of them
  const canvas = h("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) }), pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = color;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

const TEXT = /^text\/|[/+](json|xml|yaml|x-ndjson|javascript|toml)$/;
const TEXT_NAME = /\.(jsonl|ndjson|json|txt|md|csv|tsv|log|ya?ml|toml|xml|vtt|srt|geojson)$/i;

class Item extends View {
  constructor(id, params) {
    super();
    Object.assign(this, { id, params, rows: new Map(), marks: new Map(), masks: new Map() });
    addEventListener("keydown", (event) => this.key(event), { signal: this.signal });
  }

  start() {
    return this.put(this.node, "the item", async () => {
      const item = await json(at("items", this.id), { signal: this.signal });
      const [dataset, labels] = await Promise.all([json(at("datasets", item.datasetId), { signal: this.signal }), annotationsOf(item.datasetId, [item.id], this.signal)]);
      Object.assign(this, { item, labels, ontology: await ontologyOf(dataset, this.signal) });
      const up = (text, dir) => {
        const params = new URLSearchParams(this.params);
        if (dir) params.set("dir", dir);
        return h("a", { href: link("d", dataset.id, params) }, shown(text));
      };
      this.back = link("d", dataset.id, this.params);
      this.previous = h("a", { class: "button", "aria-keyshortcuts": "ArrowLeft" }, "← Previous");
      this.next = h("a", { class: "button", "aria-keyshortcuts": "ArrowRight" }, "Next →");
      this.neighbours();
      this.stage = h("div", { class: "stage" });
      const media = h("div", { class: "media" }), system = item.metadata.system;
      this.put(media, bytes(system.size), () => this.media());
      const fact = (name, value) => value && [h("dt", {}, name), h("dd", {}, value)];
      return [h("div", { class: "title" }, this.heading(item.name, home(), up(dataset.name), ...(item.dir === "/" ? [] : [up(item.dir, item.dir)])), stale(item),
        h("nav", { class: "steps", "aria-label": "Items" }, this.previous, this.next)),
      h("div", { class: "item" }, media, h("aside", {},
        h("dl", {}, fact("Path", h("code", {}, shown(item.filename))), fact("Size", `${bytes(system.size)} (${plural(system.size, "byte")})`), fact("Type", shown(system.mimetype)),
          fact("Modified", when(system.modified)), fact("In the catalog", when(item.createdAt)), fact("Item", h("code", {}, item.id)), fact("ETag", system.etag && h("code", {}, shown(system.etag))),
          fact("Description", item.description && shown(item.description))),
        this.listed(), metadata("User metadata", item.metadata.user), metadata("System metadata", system)))];
    });
  }

  async neighbours() {
    const step = async (node, backwards) => {
      const { found } = await find(this.item.datasetId, this.params, { after: this.item, backwards, size: 1, signal: this.signal });
      if (found.length) node.href = link("i", found[0].id, this.params);
      // Replaced, so that the browser's Back leads to the dataset and not through every image.
      node.addEventListener("click", (event) => { event.preventDefault(); if (node.href) location.replace(node.href); });
    };
    await Promise.all([step(this.previous, true), step(this.next, false)]).catch(() => {});
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || /^(INPUT|SELECT|TEXTAREA|VIDEO|AUDIO)$/.test(event.target.tagName)) return;
    const step = { ArrowLeft: this.previous, ArrowRight: this.next }[event.key];
    if (step?.href) event.preventDefault(), step.click();
    else if (event.key === "Escape" && this.back) location.hash = this.back;
  }

  // The bytes, with the token, as a blob: an element with a plain src could not send it.
  async media() {
    const { mimetype, size } = this.item.metadata.system, [kind] = mimetype.split("/");
    const text = TEXT.test(mimetype) || (kind !== "image" && TEXT_NAME.test(this.item.name));
    if (!size) return quiet("The object is empty.");
    if (text && !mimetype.includes("svg")) return this.text(size);
    if (!["image", "video", "audio"].includes(kind)) return quiet("There is no preview of ", shown(mimetype), ".");
    if (size > MAX_BYTES) return quiet(`${bytes(size)} is more than the page loads (${bytes(MAX_BYTES)}).`);
    try {
      const blob = await this.blob("stream"), src = this.url(new Blob([blob], { type: mimetype }));
      return [this.tags(), await this.player(kind, src)];
    } catch (error) {
      if (over(error) || !pictured(this.item)) throw error;
      const image = h("img", { src: this.url(await this.blob("thumbnail")), alt: "" });
      return [quiet(shown(error.message), ": a small picture instead, without annotations."), image];
    }
  }

  blob = async (what) => (await call(at("items", this.id, what), { signal: this.signal, cache: what === "thumbnail" ? "no-cache" : undefined })).blob();

  async text(size) {
    const part = size > MAX_TEXT, headers = part ? { Range: `bytes=0-${MAX_TEXT - 1}` } : {};
    const answer = await call(at("items", this.id, "stream"), { signal: this.signal, headers });
    const told = new TextDecoder().decode(await answer.arrayBuffer());
    return [part && quiet(`The first ${bytes(MAX_TEXT)} of ${bytes(size)}.`), h("pre", { class: "text", tabindex: 0, "aria-label": "Text" }, lines(told))].filter(Boolean);
  }

  async player(kind, src) {
    if (kind === "image") {
      const image = h("img", { src, alt: plain(this.item.name) });
      await image.decode().catch(() => { throw new Problem(0, `this browser does not show ${this.item.metadata.system.mimetype}`); });
      this.revoke(src);
      // Natural sizes are those of the upright image, which the coordinates are of as well.
      return this.staged(image, image.naturalWidth, image.naturalHeight);
    }
    const player = h(kind, { src, controls: true, preload: "auto" });
    await new Promise((done, fail) => {
      player.addEventListener("loadedmetadata", done, { once: true });
      player.addEventListener("error", () => fail(new Problem(0, `this browser does not play ${this.item.metadata.system.mimetype}`)), { once: true });
    });
    if (kind === "audio" || !player.videoWidth) return player;
    const stage = this.staged(player, player.videoWidth, player.videoHeight), follow = () => {
      this.draw(player.currentTime);
      player.requestVideoFrameCallback?.(follow);
    };
    player.addEventListener("timeupdate", () => this.draw(player.currentTime), { signal: this.signal });
    follow();
    return stage;
  }

  staged(node, width, height) {
    this.overlay = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: node.tagName === "VIDEO" ? "over" : "over hit", "aria-hidden": "true" });
    this.stage.append(node, this.overlay);
    // As large as fits the window; small images up to four times their size.
    this.stage.style.width = `min(100%, ${((72 * width) / height).toFixed(2)}vh, ${width * 4}px)`;
    this.stage.style.aspectRatio = `${width} / ${height}`;
    this.draw(node.tagName === "VIDEO" ? 0 : null);
    return this.stage;
  }

  draw(time) {
    const fps = Number(this.item.metadata.fps ?? this.item.metadata.system.fps) || 25;
    this.overlay.replaceChildren();
    this.marks.clear();
    for (const one of this.labels) {
      const color = this.ontology.colors.get(one.label) ?? colorOf(one.label);
      try {
        const where = geometry(one, time, fps);
        if (one.type === "binary") this.mask(one, where, color);
        else if (where && Object.hasOwn(SHAPES, one.type)) this.mark(one, SHAPES[one.type](where), color);
      } catch {
        this.failed(one);
      }
    }
    this.select(this.selected);
  }

  mark(one, shape, color) {
    const group = svg("g", { "data-id": one.id, "data-type": one.type, click: () => this.select(this.selected === one.id ? null : one.id) },
      svg("title", {}, plain(`${one.label} (${one.type})`)), fill(shape.cloneNode(true), { class: `halo ${shape.getAttribute("class") ?? ""}` }, []), shape);
    group.style.setProperty("--color", color);
    this.marks.set(one.id, group);
    this.overlay.append(group);
  }

  mask(one, where, color) {
    if (!this.masks.has(one.id)) {
      this.masks.set(one.id, h("canvas", { hidden: true }));
      mask(where ?? one.coordinates, color).then((canvas) => {
        fill(canvas, { class: "over mask", "data-id": one.id, "aria-hidden": "true" }, []);
        canvas.hidden = !where;
        this.masks.set(one.id, canvas);
        this.overlay.before(canvas);
        this.select(this.selected);
      }, () => this.failed(one));
    }
    this.masks.get(one.id).hidden = !where;
  }

  failed(one) {
    this.rows.get(one.id)?.querySelector(".cannot").replaceChildren("cannot be drawn");
  }

  select(id) {
    this.selected = id ?? null;
    for (const [one, node] of [...this.marks, ...this.masks]) node.classList.toggle("dim", Boolean(this.selected) && one !== this.selected);
    for (const [one, row] of this.rows) row.querySelector("button").setAttribute("aria-pressed", String(one === this.selected));
    this.rows.get(this.selected)?.scrollIntoView({ block: "nearest" });
  }

  tags() {
    const found = this.labels.filter((one) => one.type === "class");
    return h("p", { class: "chips", hidden: !found.length, "aria-label": "Tags" }, found.map((one) => chip(one.label, this.ontology)));
  }

  listed() {
    const all = this.labels, row = (one) => {
      const told = h("li", {}, h("button", { type: "button", "aria-pressed": "false", click: () => this.select(this.selected === one.id ? null : one.id) },
        chip(one.label, this.ontology), h("span", { class: "quiet" }, shown(one.type)), h("span", { class: "cannot" }), h("span", { class: "quiet by" }, shown(one.creator ?? ""))),
      facts(one, this.ontology).map(([name, value]) => h("div", { class: "fact" }, h("span", { class: "quiet" }, shown(name), " "), shown(value))));
      this.rows.set(one.id, told);
      return told;
    };
    const box = h("input", { type: "checkbox", checked: true, change: () => this.stage.classList.toggle("bare", !box.checked) });
    const more = this.item.annotationsCount > all.length ? ` of ${count(this.item.annotationsCount)}` : "";
    return h("section", { class: "labels", "aria-label": "Annotations" }, h("h2", {}, `Annotations (${count(all.length)}${more})`),
      all.length > 0 && h("label", { class: "check" }, box, "drawn"), all.length ? h("ol", {}, all.map(row)) : quiet("There are none."));
  }
}

// What is told of an annotation beside its label and type.
function facts(one, { titles }) {
  const system = one.metadata?.system ?? {}, text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const found = Object.entries(system.attributes ?? {}).map(([key, value]) => [titles.get(key) ?? key, text(value)]);
  if (Array.isArray(one.attributes) && one.attributes.length) found.push(["attributes", one.attributes.map(text).join(", ")]);
  if (one.type === "text") found.push(["text", text(one.coordinates)]);
  if (one.type === "subtitle") found.push(["text", text(one.coordinates?.text ?? "")]);
  for (const message of one.coordinates?.note?.messages ?? []) found.push([message.creator ?? "note", text(message.body ?? "")]);
  if (typeof system.startTime === "number") found.push(["time", `${system.startTime}–${system.endTime ?? "?"} s`]);
  if (one.description) found.push(["description", text(one.description)]);
  const model = one.metadata?.user?.model;
  if (model) found.push(["model", `${model.name ?? "?"} ${model.confidence ?? ""}`]);
  return found;
}

function metadata(title, told) {
  const empty = !Object.keys(told ?? {}).length;
  return h("details", { open: !empty && title.startsWith("User") }, h("summary", {}, title, empty ? " (empty)" : ""), h("pre", {}, lines(JSON.stringify(told ?? {}, null, 2))));
}

// -- how a dataset and its bucket stand -----------------------------------------------------------

const FINAL = ["success", "failed", "timeout", "canceled", "aborted"];

class Sync extends View {
  constructor(id) {
    super();
    this.id = id;
  }

  start() {
    return this.put(this.node, "the dataset", async () => {
      this.dataset = await json(at("datasets", this.id), { signal: this.signal });
      const place = h("div");
      this.look(place);
      return [h("div", { class: "title" }, this.heading(this.dataset.name, home()), tabs(this.id, "sync")), place];
    });
  }

  async state() {
    const ask = (what, body) => json(at("syncagent", "datasets", this.id, what), { body, signal: this.signal });
    const commands = (await json("/commands", { signal: this.signal })).filter((one) => [one.spec.datasetId, one.spec.returnedModelId].includes(this.id));
    const jobs = commands.filter((one) => !FINAL.includes(one.status)).map((one) =>
      h("p", { role: "status" }, h("progress", { max: 100, value: one.progress, "aria-label": "progress" }), " ", shown(one.type), ` ${one.status}, ${one.progress} %, since `, when(one.createdAt)));
    this.running = jobs.length > 0;
    if (!this.dataset.driver) return [quiet("This dataset mirrors no bucket: its files were uploaded."), ...jobs];
    const [{ runs }, { keys }, { items: trash }] = await Promise.all([
      ask("runs", { limit: 20 }), ask("quarantined", {}), ask("items", { prefix: "", after: null, limit: 1000, trashed: true })]);
    this.running ||= runs.some((one) => one.state === "running");
    const figure = (name, value, warn) => h("div", { class: warn ? "figure warn" : "figure" }, h("strong", {}, value), h("span", {}, name));
    const drift = (run, name) => (run.report[name] ? h("b", {}, count(run.report[name])) : "0");
    const took = (run) => `${run.report.seconds < 10 ? run.report.seconds.toFixed(1) : Math.round(run.report.seconds)} s`;
    return [
      h("div", { class: "figures" }, figure("items", count(this.dataset.itemsCount)), figure("annotated", percent(share(this.dataset))),
        figure("in quarantine", count(keys.length), keys.length > 0), figure("in the trash", trash.length < 1000 ? count(trash.length) : "1,000 or more")),
      ...jobs,
      h("h2", {}, "Runs"),
      runs.length ? table([["", "Run"], ["", "State"], ["wide", "Began"], ["wide number", "Took"], ["wide number", "Listed"], ["number", "Added"], ["number", "Changed"], ["number", "Moved"], ["number", "Removed"], ["number", "Failed"]],
        runs.map((run) => [count(run.number), [h("span", { class: `state ${run.state}` }, run.state), (run.error || run.report.refused) && h("div", { class: "quiet" }, shown(run.error ?? run.report.refused))],
          when(run.started_at), took(run), count(run.report.listed), ...["added", "changed", "moved", "removed", "failed"].map((name) => drift(run, name))])) : quiet("It was never synced."),
      keys.length > 0 && listing("Quarantine", keys, (one) => [shown(one.key), h("span", { class: "quiet" }, ` ${one.error}: `, shown(one.reason), ` (${plural(one.attempts, "attempt")})`)]),
      trash.length > 0 && listing("Trash", trash, (one) => [shown(one.key), h("span", { class: "quiet" }, ` ${bytes(one.size)}, removed `, when(one.removed_at))]),
    ].filter(Boolean);
  }

  async look(place) {
    await this.put(place, "runs", () => this.state());
    if (this.running && !this.signal.aborted) setTimeout(() => this.signal.aborted || this.look(place), 3000);
  }
}

function listing(title, all, row) {
  const rest = all.length - 50;
  return h("section", {}, h("h2", {}, title), h("ul", { class: "keys" }, all.slice(0, 50).map((one) => h("li", {}, row(one)))), rest > 0 && quiet(`and ${count(rest)} more`));
}

// -- where one is ---------------------------------------------------------------------------------

function link(kind, id, params) {
  const query = params?.toString();
  return `#/${kind}/${id}${query ? `?${query}` : ""}`;
}

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2), [kind, id, tab] = path.split("/");
  return { kind: id && kind, id, tab, params: new URLSearchParams(query) };
}

function show(view) {
  if (view === current) return;
  const old = current;
  current = view;
  if (old instanceof Dataset && view instanceof Item) kept = Object.assign(old, { at: scrollY, focused: document.activeElement });
  else if (old !== kept) old?.dispose();
  if (kept && kept !== view && !(view instanceof Item)) kept.dispose(), (kept = null);
  main.replaceChildren(view.node);
  scrollTo(0, view.at ?? 0);
  view.focused?.focus({ preventScroll: true });
}

async function route() {
  document.getElementById("who").hidden = !session;
  document.getElementById("email").textContent = session?.email ?? "";
  if (!session) return enter();
  const { kind, id, tab, params } = parse();
  const same = [current, kept].find((one) => kind === "d" && !tab && one instanceof Dataset && one.id === id);
  if (same) {
    show(same);
    if (same.dataset) same.heading(same.dataset.name, home());
    return same.update(params);
  }
  const view = kind === "d" ? new (tab === "sync" ? Sync : Dataset)(id) : kind === "i" ? new Item(id, params) : new Datasets();
  show(view);
  view.heading("", home());
  await view.start();
  // Who uses a keyboard or a screen reader goes on from the heading.
  return view === current && view.node.querySelector("h1")?.focus({ preventScroll: true });
}

function enter(message) {
  const view = new SignIn(message);
  show(view);
  view.first.focus();
}

function leave(message) {
  keep(null);
  known.clear();
  document.getElementById("who").hidden = true;
  document.getElementById("email").textContent = "";
  enter(message);
}

document.getElementById("leave").addEventListener("click", () => {
  history.replaceState(null, "", "#/");
  leave();
});
history.scrollRestoration = "manual"; // `show` does it
addEventListener("hashchange", route);
route();

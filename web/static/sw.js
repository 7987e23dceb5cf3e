// Keeps the page for when there is no network. The build puts the version and the list of the page's own files in; which
// files the model has, its manifest says.
const CACHE = "kosmos-__VERSION__";
const FILES = __FILES__;
const MODEL = "models/tiny/";
/** What the page loads of a model. */
const PARTS = ["vision", "mllm", "aligner", "unet", "vae"];
/** The GPU's program is large, and kept once it was used. */
const LARGE = "worker-gpu";
/** A network that takes longer than this is none. */
const PATIENCE_MS = 4000;
/** Answers vary by the request's origin and encodings, which differ between a script and what was asked for in advance. */
const ANY = { ignoreVary: true };

addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    const manifest = await fetch(`${MODEL}bundle.json`, { cache: "no-cache" });
    if (!manifest.ok) throw new Error(`${manifest.url}: ${manifest.status}`);
    // The very manifest that the list is made from.
    await cache.put(`${MODEL}bundle.json`, manifest.clone());
    const { tokenizer, parts } = await manifest.json();
    const model = [tokenizer, ...PARTS.flatMap((part) => parts[part].files)];
    const isWanted = (await usedLarge()) ? () => true : (file) => !file.includes(LARGE);
    const files = [...FILES.filter(isWanted), ...model.map(({ name, sha256 }) => `${MODEL}${name}?v=${sha256.slice(0, 16)}`)];
    await Promise.all(files.map((file) => add(cache, file)));
  };
  event.waitUntil(keep());
});

// It waits until no tab runs an older page, or until the person wants the newer one: then the page says so.
addEventListener("message", ({ data, ports }) => {
  switch (data) {
    case "take over":
      skipWaiting();
      break;
    case "which":
      // The folder of the programs that belong to this version.
      ports[0]?.postMessage(new URL(FILES.find((file) => file.startsWith("app/")), registration.scope).href.replace(/[^/]*$/, ""));
      break;
    case "tidy":
      tidy();
      break;
  }
});

addEventListener("activate", (event) => event.waitUntil(tidy().then(() => clients.claim())));

addEventListener("fetch", (event) => {
  const { request } = event;
  const scope = new URL(registration.scope);
  if (request.method !== "GET" || !request.url.startsWith(scope.href) || request.headers.has("range")) return;
  const path = request.url.slice(scope.href.length);
  if (path.startsWith("api/") || path.startsWith("health")) return;
  event.respondWith(isImmutable(path) ? cacheFirst(event) : networkFirst(request));
});

/** Addresses that carry a hash of what is behind them. */
function isImmutable(path) {
  return path.startsWith("app/") || path.includes("?v=");
}

/** Keeps a file: what an older version has of it already is not fetched again. */
async function add(cache, file) {
  const there = isImmutable(file) && (await keptByAny(file));
  if (there) return cache.put(file, there);
  return cache.add(new Request(file, isImmutable(file) ? {} : { cache: "no-cache" }));
}

/** Whether the person has used the GPU: then it is there without a network in the next version too. */
async function usedLarge() {
  for (const name of await names()) {
    const files = await (await caches.open(name)).keys();
    if (files.some(({ url }) => url.includes(LARGE))) return true;
  }
  return false;
}

/** Removes other versions, unless there may be a tab that still runs one of them, or one is on its way. */
async function tidy() {
  if (registration.installing || registration.waiting) return;
  const windows = await clients.matchAll({ type: "window", includeUncontrolled: true });
  if (windows.length > 1) return;
  await Promise.all((await names()).filter((name) => name !== CACHE).map((name) => caches.delete(name)));
}

async function names() {
  return (await caches.keys()).filter((name) => name.startsWith("kosmos-"));
}

async function cacheFirst(event) {
  const { request } = event;
  const there = await keptByAny(request);
  if (there) return there;
  const response = await fetch(request);
  if (response.ok) {
    const copy = response.clone();
    // Without room for it, it is fetched again another time.
    event.waitUntil(caches.open(CACHE).then((cache) => cache.put(request, copy)).catch(() => {}));
  }
  return response;
}

async function networkFirst(request) {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  let response = Response.error();
  try {
    response = await fetch(request, { signal: patience.signal });
    // Something before the server may answer in its place, that it is not there; and a device that the server does not know
    // any more can still work with what is kept.
    if (response.status < 500 && response.status !== 401) return response;
  } catch {
    // No network.
  } finally {
    // An answer that has begun may take its time.
    clearTimeout(timer);
  }
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ...ANY, ignoreSearch: true })) ?? response;
}

/** What any version keeps under an address that carries a hash: whichever it is, it is the same. */
async function keptByAny(request) {
  for (const name of await names()) {
    const there = await (await caches.open(name)).match(request, ANY);
    if (there) return there;
  }
}

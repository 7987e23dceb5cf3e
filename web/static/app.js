// Starts the interface, and does what must work without it: says so when it breaks, keeps the page for when there is no
// network, and brings newer versions. It never loads the page again by itself: only who uses it knows when that is good.
const assets = new URL(".", import.meta.url).href;
const element = (id) => document.getElementById(id);
const main = element("app");

/** What went wrong lately, for a report. */
const errors = [];
const MOST_ERRORS = 20;
const note = (what) => {
  // What follows from a stop says nothing new.
  if (element("crash").open) return;
  errors.push(`${new Date().toISOString().slice(0, 19)}Z ${what}`);
  errors.splice(0, errors.length - MOST_ERRORS);
};

const broke = (error) => {
  const trouble = element("crash");
  if (trouble.open) return;
  const { CompileError, RuntimeError } = globalThis.WebAssembly ?? {};
  const why = !CompileError || error instanceof CompileError ? "old" : error instanceof RuntimeError ? "broken" : "unloaded";
  for (const words of trouble.querySelectorAll("[data-why]")) words.hidden = words.dataset.why !== why;
  trouble.showModal();
};
const failed = (error, words) => {
  note(words || String(error?.message ?? error));
  // A program of WebAssembly that has panicked does nothing any more.
  if (globalThis.WebAssembly && error instanceof WebAssembly.RuntimeError) broke(error);
};
addEventListener("error", ({ error, message }) => failed(error, message));
addEventListener("unhandledrejection", ({ reason }) => failed(reason));
// Without its dialog, a dead page would look alive.
element("crash").addEventListener("close", () => element("crash").showModal());
element("crash-reload").addEventListener("click", () => location.reload());
element("crash-copy").addEventListener("click", () => copy(element("crash-copy"), element("crash-report"), element("crash-told")));
element("copy-report").addEventListener("click", () => copy(element("copy-report"), element("report"), element("device-told")));

/** Copies the report; where the browser does not allow that, shows it to be copied by hand. */
async function copy({ dataset }, field, told) {
  const facts = element("report").dataset.facts ?? `${assets}\n${navigator.userAgent}`;
  field.value = [facts, ...errors].join("\n");
  told.textContent = "";
  try {
    await navigator.clipboard.writeText(field.value);
    told.textContent = dataset.done;
  } catch {
    field.hidden = false;
    field.focus();
    field.select();
    told.textContent = document.execCommand("copy") ? dataset.done : dataset.byHand;
  }
}

try {
  const { default: init, start } = await import("./ui.js");
  await init();
  start(assets, note);
} catch (error) {
  failed(error);
  broke(error);
}

// What a browser needs to offer the page as a program of its own.
let offer;
addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  offer = event;
  element("install").hidden = false;
});
element("install").addEventListener("click", async () => {
  element("install").hidden = true;
  await offer?.prompt();
  offer = undefined;
});
addEventListener("appinstalled", () => (element("install").hidden = true));

const workers = navigator.serviceWorker;
/** How long a service worker may take to answer. */
const ANSWER_MS = 3000;
const HOUR_MS = 3_600_000;
let registration;
let isAgreed = false;
let lastLook = Date.now();

/** Whether a service worker belongs to the version of this page. */
const isOurs = (worker) => {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage("which", [port2]);
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data === assets);
    setTimeout(resolve, ANSWER_MS, false);
  });
};
const loadAgain = () => {
  if (!isAgreed) return;
  isAgreed = false;
  location.reload();
};
/** Says whether the page is kept. */
const show = (state) => {
  main.dataset.offline = state;
  main.dispatchEvent(new Event("offline"));
  element("offline").textContent = state === "ready" ? element("offline").dataset.ready : "";
};
const waits = async (worker) => {
  // A page that came fresh from the server may be newer than what was kept: then nobody has to decide anything.
  if (await isOurs(worker)) worker.postMessage("take over");
  else element("update").hidden = false;
};
const watch = (worker) =>
  worker?.addEventListener("statechange", () => {
    if (worker.state === "installed" && registration.active) waits(worker);
    else if (worker.state === "activated") show("ready");
    else if (worker.state === "redundant" && !registration.active) show("failed");
  });

async function keep() {
  try {
    registration = await workers.register("sw.js");
  } catch (error) {
    show("failed");
    return note(error.message);
  }
  if (registration.active) {
    // Known from an earlier visit, and not to be read out at each.
    element("offline").removeAttribute("role");
    show("ready");
    registration.active.postMessage("tidy");
  } else {
    show("coming");
  }
  registration.addEventListener("updatefound", () => watch(registration.installing));
  watch(registration.installing);
  if (registration.waiting) waits(registration.waiting);
}

if (workers) {
  workers.addEventListener("controllerchange", async () => {
    if (isAgreed) loadAgain();
    // Another tab has brought a newer version.
    else if (!(await isOurs(workers.controller))) element("update").hidden = false;
  });
  element("update-reload").addEventListener("click", () => {
    isAgreed = true;
    if (!registration.waiting) return loadAgain();
    registration.waiting.postMessage("take over");
    setTimeout(loadAgain, ANSWER_MS);
  });
  element("update-later").addEventListener("click", () => (element("update").hidden = true));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !registration?.active || Date.now() < lastLook + HOUR_MS) return;
    lastLook = Date.now();
    // Without a network there is nothing newer.
    registration.update().catch(() => {});
  });
  // A program that cannot be fetched may be that of an older page.
  main.addEventListener("unloaded", () => registration?.update().catch(() => {}));
  addEventListener("online", () => main.dataset.offline === "failed" && keep());
  // The model comes first, and what is kept for later after it.
  const observer = new MutationObserver(() => main.dataset.state !== "loading" && begin());
  const begin = () => {
    observer.disconnect();
    keep();
  };
  observer.observe(main, { attributeFilter: ["data-state"] });
  if (main.dataset.state !== "loading") begin();
}

// Starts the interface; once the model is loaded, has the page kept for when there is no network.
import init, { start } from "./ui.js";

await init();
start(new URL(".", import.meta.url).href);

const main = document.getElementById("app");
const keep = () => {
  if (main.dataset.state === "loading") return false;
  navigator.serviceWorker?.register("sw.js");
  return true;
};
if (!keep()) {
  const observer = new MutationObserver(() => keep() && observer.disconnect());
  observer.observe(main, { attributeFilter: ["data-state"] });
}

// Starts the model: the program for the CPU or the one for the GPU, by the name this worker was started with.
const died = (message) =>
  postMessage({ json: JSON.stringify({ request: 0, body: { died: { message: String(message) } } }), data: [] });
addEventListener("unhandledrejection", (event) => died(event.reason));
addEventListener("error", (event) => died(event.message));

const engine = self.name === "gpu" ? "gpu" : "cpu"; // Who keeps the models needs the smaller one.
let start;
try {
  const program = await import(`./worker-${engine}.js`);
  await program.default();
  start = program.start;
} catch (error) {
  console.error(error);
  // Without words: the page has its own for a program that cannot be fetched.
  died(error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError ? error : "");
}
start?.();

// Runs one call of the official Node client and prints its answer as JSON.
// stdin: {"key", "baseUrl", "calls": [["requests.create", [args...]], ...]}
const {Lava} = require('@lavapayments/nodejs');

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const told = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  const lava = new Lava(told.key, {baseUrl: told.baseUrl});
  const answers = [];
  for (const [path, args] of told.calls) {
    const [resource, method] = path.split('.');
    try {
      const target = method === undefined ? lava : lava[resource];
      answers.push({ok: await target[method ?? resource](...args)});
    } catch (error) {
      answers.push({error: error.message});
    }
  }
  process.stdout.write(JSON.stringify(answers));
}

main().catch((error) => {
  process.stderr.write(String(error));
  process.exit(1);
});

// Runs calls of an official Node client and prints its answers as JSON.
// stdin: {"client", "key", "baseUrl", "calls": [["requests.create", [args...]], ...]}
// A call named "methods" lists every method the client has.

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const told = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  const {Lava} = require(told.client);
  const lava = new Lava(told.key, {baseUrl: told.baseUrl});
  const answers = [];
  for (const [path, args] of told.calls) {
    const [resource, method] = path.split('.');
    try {
      if (path === 'methods') {
        answers.push({ok: methods(Lava, lava)});
        continue;
      }
      const target = resource === 'Lava' ? Lava : method === undefined ? lava : lava[resource];
      const answer = await target[method ?? resource](...args);
      answers.push(answer === undefined ? {error: 'the client answered undefined'} : {ok: answer});
    } catch (error) {
      answers.push({error: error.message});
    }
  }
  process.stdout.write(JSON.stringify(answers));
}

function methods(Lava, lava) {
  const own = (thing, skip) =>
    Object.getOwnPropertyNames(thing).filter(
      (name) => typeof thing[name] === 'function' && !skip.includes(name),
    );
  const found = own(Object.getPrototypeOf(lava), ['constructor', 'throwApiError']);
  found.push(...own(Lava, []).map((name) => `Lava.${name}`));
  for (const [name, value] of Object.entries(lava)) {
    if (value !== null && typeof value === 'object' && value.constructor !== Object) {
      const resource = Object.getPrototypeOf(value);
      found.push(...own(resource, ['constructor']).map((method) => `${name}.${method}`));
    }
  }
  return found.sort();
}

main().catch((error) => {
  process.stderr.write(String(error));
  process.exit(1);
});

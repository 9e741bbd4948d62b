// An issuer of JWTs. It prints its URL, and then answers each line of input with a line:
// `rotate` replaces its key, anything else is the claims of a token, as JSON.
import { createInterface } from "node:readline";
import { OAuth2Server } from "oauth2-mock-server";

let server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
await server.start(0, "127.0.0.1");
const { port } = server.address();
console.log(server.issuer.url);

async function rotate() {
  const { url } = server.issuer;
  await server.stop();
  server = new OAuth2Server();
  await server.issuer.keys.generate("ES256");
  await server.start(port, "127.0.0.1");
  server.issuer.url = url;
  return "rotated";
}

function token(claims) {
  return server.issuer.buildToken({
    scopesOrTransform: (_, payload) => Object.assign(payload, claims),
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(line === "rotate" ? await rotate() : await token(JSON.parse(line)));
}
await server.stop();

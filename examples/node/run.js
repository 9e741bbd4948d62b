// Starts a run and prints its output: node run.js AGENT INPUT
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";

const ADDRESS = process.env.POLOS_ADDRESS || "127.0.0.1:50051";
const KEY = process.env.POLOS_API_KEY;
const TLS = process.env.POLOS_TLS || "0"; // 1, 0, or a PEM file with the CA to trust
const PATIENCE = 60_000; // ms of consecutive failures after which we give up
const SILENCE = 45_000; // ms without a response after which a connection is dead: 3 heartbeats
const DEADLINE = 30_000; // ms for a unary call; a stream has no deadline
const LOCAL = /^(unix:|(localhost|127(\.\d+){3}|\[::1\]):)/; // an address on this machine

const plaintext = ["0", "false"].includes(TLS);
if (KEY && plaintext && !LOCAL.test(ADDRESS)) {
  console.error(`the API key would travel to ${ADDRESS} in plaintext; set POLOS_TLS=1`);
  process.exit(2);
}

const definition = loadSync("polos/v1/run_service.proto", {
  includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
  longs: String, // a number cannot represent every int64
  enums: String,
  oneofs: true, // event.payload is the name of the field that is set
});
const { RunService } = grpc.loadPackageDefinition(definition).polos.v1;
const authority = plaintext || ["1", "true"].includes(TLS) ? undefined : readFileSync(TLS);
const { createInsecure, createSsl } = grpc.credentials;
const credentials = plaintext ? createInsecure() : createSsl(authority);
const runs = new RunService(ADDRESS, credentials, {
  "grpc.keepalive_time_ms": 30_000, // at least 10 s, or the service closes the connection
  "grpc.keepalive_timeout_ms": 10_000,
});
const metadata = new grpc.Metadata(); // sent with each call
if (KEY) metadata.set("authorization", `Bearer ${KEY}`);

const { root: rpc } = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`);

/** Returns why the service refused a call; undefined if no handler responded. */
function refusal(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return undefined;
  const { details } = rpc.lookupType("Status").decode(bytes);
  const packed = details.find(({ typeUrl }) => typeUrl.endsWith("/google.rpc.ErrorInfo"));
  const info = packed && rpc.lookupType("ErrorInfo").decode(packed.value);
  return info?.domain === "polos.v1" ? info.reason : undefined;
}

/** Returns whether the same call may succeed if it is retried. */
function isTransient(error) {
  const { UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED, DEADLINE_EXCEEDED } = grpc.status;
  const dropped = [UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED, DEADLINE_EXCEEDED];
  const reason = refusal(error);
  if (reason) return reason === "DRAINING" || reason === "STORE_UNAVAILABLE";
  return dropped.includes(error.code);
}

/** Waits longer after each failure, and throws the error if failures persist. */
class Backoff {
  constructor() {
    this.reset();
  }

  reset() {
    this.since = undefined;
    this.delay = 100;
  }

  async wait(error) {
    this.since ??= Date.now();
    if (!isTransient(error) || Date.now() - this.since > PATIENCE) throw error;
    await sleep(this.delay * (0.5 + Math.random()));
    this.delay = Math.min(2 * this.delay, 2_000);
  }
}

/** Starts a run and returns its id once the run is stored. */
async function start(agentId, input) {
  // With a request id, retrying after a lost response does not start a second run.
  const request = { agentId, input, streaming: true, requestId: randomUUID() };
  for (const backoff = new Backoff(); ; ) {
    try {
      return await new Promise((resolve, reject) => {
        const options = { deadline: Date.now() + DEADLINE };
        runs.CreateRun(request, metadata, options, (error, answer) =>
          error ? reject(error) : resolve(answer.run.runId),
        );
      });
    } catch (error) {
      await backoff.wait(error);
    }
  }
}

/** Yields the events of a run, each once and in order, until the one that ends it. */
async function* follow(runId) {
  const backoff = new Backoff();
  for (let cursor = "0"; ; ) {
    const request = { workflowRunId: runId, afterSequence: cursor };
    const call = runs.StreamWorkflow(request, metadata);
    const silence = setTimeout(() => call.cancel(), SILENCE);
    try {
      for await (const { events = [] } of call) {
        silence.refresh(); // a response without events is a heartbeat
        backoff.reset();
        for (const event of events) {
          cursor = event.sequence;
          yield event;
          if (event.terminal) return;
        }
      }
    } catch (error) {
      await backoff.wait(error);
      continue;
    } finally {
      clearTimeout(silence);
      call.on("error", () => {}); // ignore the error that cancel() causes
      call.cancel();
    }
    throw new Error(`run ${runId} stopped after event ${cursor}, before its end`);
  }
}

/** Prints an event; skips events of unknown types. */
function show(event) {
  switch (event.payload) {
    case "textDelta":
      return process.stdout.write(event.textDelta.content);
    case "stepRetry":
      return console.log(`\n[${event.stepRetry.stepKey} starts over: ${event.stepRetry.message}]`);
    case "stepFinish":
      return event.stepFinish.toolCall && console.log(`[${event.stepFinish.stepKey}]`);
    case "agentFinish":
      return console.log(`\n${event.agentFinish.usage?.totalTokens ?? "?"} tokens`);
    case "error":
      return console.error(`\n${event.error.reason}: ${event.error.message}`);
    case "runCancelled":
      return console.error("\ncancelled");
  }
}

const [agentId, input] = process.argv.slice(2);
try {
  let last;
  for await (last of follow(await start(agentId, input))) show(last);
  process.exitCode = last.payload === "agentFinish" ? 0 : 1;
} catch (error) {
  console.error(`${refusal(error) ?? grpc.status[error.code] ?? "Error"}: ${error.details ?? error}`);
  process.exitCode = 2;
} finally {
  runs.close();
}

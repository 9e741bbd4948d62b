// Starts a run and prints its output: npx tsx run.ts AGENT INPUT
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { FailureReasonSchema } from "./gen/polos/v1/error_pb.js";
import type { Event } from "./gen/polos/v1/event_pb.js";
import { RunService } from "./gen/polos/v1/run_service_pb.js";

const ADDRESS = process.env.POLOS_ADDRESS || "127.0.0.1:50051";
const KEY = process.env.POLOS_API_KEY;
const TLS = process.env.POLOS_TLS || "0"; // 1, 0, or a PEM file with the CA to trust
const PATIENCE = 60_000; // ms of consecutive failures after which we give up
const SILENCE = 45_000; // ms without a response after which a stream is dead: 3 heartbeats
const DEADLINE = 30_000; // ms for a unary call; a stream has no deadline
const LOCAL = /^(unix:|(localhost|127(\.\d+){3}|\[::1\]):)/; // an address on this machine

const plaintext = ["0", "false"].includes(TLS);
if (KEY && plaintext && !LOCAL.test(ADDRESS)) {
  console.error(`the API key would travel to ${ADDRESS} in plaintext; set POLOS_TLS=1`);
  process.exit(2);
}

const headers: Record<string, string> = KEY ? { authorization: `Bearer ${KEY}` } : {};
const authority = plaintext || ["1", "true"].includes(TLS) ? undefined : readFileSync(TLS);
const runs = createClient(
  RunService,
  createGrpcTransport({
    baseUrl: `${plaintext ? "http" : "https"}://${ADDRESS}`,
    nodeOptions: { ca: authority },
    pingIntervalMs: 30_000, // at least 10 s, or the service closes the connection
    pingTimeoutMs: 10_000,
  }),
);

/** Returns why the service refused a call; undefined if no handler responded. */
function refusal(error: ConnectError): string | undefined {
  for (const detail of error.details) {
    if (!("type" in detail) || detail.type !== "google.rpc.ErrorInfo") continue;
    const reader = new BinaryReader(detail.value);
    const fields = new Map<number, string>();
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      if (number <= 2) fields.set(number, reader.string());
      else reader.skip(wireType, number);
    }
    if (fields.get(2) === "polos.v1") return fields.get(1);
  }
  return undefined;
}

/** Returns whether the same call may succeed if it is retried. */
function isTransient(error: ConnectError): boolean {
  const { Unavailable, Internal, Unknown, Canceled, DeadlineExceeded } = Code;
  const reason = refusal(error);
  if (reason) return reason === "DRAINING" || reason === "STORE_UNAVAILABLE";
  return [Unavailable, Internal, Unknown, Canceled, DeadlineExceeded].includes(error.code);
}

/** Waits longer after each failure, and throws the error if failures persist. */
class Backoff {
  private since?: number;
  private delay = 100;

  reset() {
    this.since = undefined;
    this.delay = 100;
  }

  async wait(reason: unknown) {
    const error = ConnectError.from(reason);
    this.since ??= Date.now();
    if (!isTransient(error) || Date.now() - this.since > PATIENCE) throw error;
    await sleep(this.delay * (0.5 + Math.random()));
    this.delay = Math.min(2 * this.delay, 2_000);
  }
}

/** Starts a run and returns its id once the run is stored. */
async function start(agentId: string, input: string): Promise<string> {
  // With a request id, retrying after a lost response does not start a second run.
  const request = { agentId, input, streaming: true, requestId: randomUUID() };
  for (const backoff = new Backoff(); ; ) {
    try {
      const { run } = await runs.createRun(request, { headers, timeoutMs: DEADLINE });
      return run!.runId;
    } catch (error) {
      await backoff.wait(error);
    }
  }
}

/** Yields the events of a run, each once and in order, until the one that ends it. */
async function* follow(runId: string): AsyncGenerator<Event> {
  const backoff = new Backoff();
  for (let cursor = 0n; ; ) {
    const call = new AbortController();
    const silence = setTimeout(() => call.abort(), SILENCE);
    try {
      const request = { workflowRunId: runId, afterSequence: cursor };
      const options = { headers, signal: call.signal };
      for await (const { events } of runs.streamWorkflow(request, options)) {
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
      call.abort();
    }
    throw new Error(`run ${runId} stopped after event ${cursor}, before its end`);
  }
}

/** Prints an event; skips events of unknown types. */
function show({ payload }: Event) {
  switch (payload.case) {
    case "textDelta":
      return process.stdout.write(payload.value.content);
    case "stepRetry":
      return console.log(`\n[${payload.value.stepKey} starts over: ${payload.value.message}]`);
    case "stepFinish":
      return payload.value.toolCall && console.log(`[${payload.value.stepKey}]`);
    case "agentFinish":
      return console.log(`\n${payload.value.usage?.totalTokens ?? "?"} tokens`);
    case "error": {
      const { reason, message } = payload.value;
      return console.error(`\n${FailureReasonSchema.value[reason]?.name ?? reason}: ${message}`);
    }
    case "runCancelled":
      return console.error("\ncancelled");
  }
}

const [agentId = "", input = ""] = process.argv.slice(2);
try {
  let last: Event | undefined;
  for await (last of follow(await start(agentId, input))) show(last);
  process.exitCode = last?.payload.case === "agentFinish" ? 0 : 1;
} catch (reason) {
  const error = ConnectError.from(reason);
  console.error(`${refusal(error) ?? Code[error.code]}: ${error.rawMessage}`);
  process.exitCode = 2;
}

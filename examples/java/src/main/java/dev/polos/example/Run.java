package dev.polos.example;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import dev.polos.v1.CreateRunRequest;
import dev.polos.v1.Event;
import dev.polos.v1.RunServiceGrpc;
import dev.polos.v1.StreamWorkflowRequest;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** Starts a run and prints its output: java -cp ... dev.polos.example.Run AGENT INPUT. */
public final class Run {
  /** Time of consecutive failures after which we give up. */
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  /** Seconds without a response after which a stream is dead: 3 heartbeats. */
  private static final int SILENCE = 45;

  /** Seconds for a unary call; a stream has no deadline. */
  private static final int DEADLINE = 30;

  /** Matches the beginning of an address on this machine. */
  private static final Pattern LOCAL =
      Pattern.compile("unix:|(localhost|127(\\.\\d+){3}|\\[::1\\]):");

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final RunServiceGrpc.RunServiceBlockingStub runs;
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(
          work -> {
            Thread thread = new Thread(work, "silence");
            thread.setDaemon(true);
            return thread;
          });

  /** The sequence of the last event that was shown. */
  private long cursor;

  private Run(ManagedChannel channel) {
    runs = RunServiceGrpc.newBlockingStub(channel);
  }

  /** Returns why the service refused a call; empty if no handler responded. */
  private static String refusal(StatusRuntimeException error) {
    for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
      try {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          if (info.getDomain().equals("polos.v1")) return info.getReason();
        }
      } catch (InvalidProtocolBufferException unreadable) {
        return "";
      }
    }
    return "";
  }

  /** Returns whether the same call may succeed if it is retried. */
  private static boolean isTransient(StatusRuntimeException error) {
    String reason = refusal(error);
    if (!reason.isEmpty()) return Set.of("DRAINING", "STORE_UNAVAILABLE").contains(reason);
    return switch (error.getStatus().getCode()) {
      case UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED, DEADLINE_EXCEEDED -> true;
      default -> false;
    };
  }

  /** Waits longer after each failure. */
  private static final class Backoff {
    private Instant since;
    private long delay;

    void reset() {
      since = null;
    }

    /** Throws the error if failures persist, or if the same call would fail again. */
    void await(StatusRuntimeException error) throws InterruptedException {
      if (since == null) {
        since = Instant.now();
        delay = 100;
      }
      boolean exhausted = Duration.between(since, Instant.now()).compareTo(PATIENCE) > 0;
      if (!isTransient(error) || exhausted) throw error;
      Thread.sleep((long) (delay * (0.5 + ThreadLocalRandom.current().nextDouble())));
      delay = Math.min(2 * delay, 2_000);
    }
  }

  /** Starts a run and returns its id once the run is stored. */
  private String start(String agent, String input) throws InterruptedException {
    CreateRunRequest request =
        CreateRunRequest.newBuilder()
            .setAgentId(agent)
            .setInput(input)
            .setStreaming(true)
            // With a request id, retrying after a lost response does not start a second run.
            .setRequestId(UUID.randomUUID().toString())
            .build();
    for (Backoff backoff = new Backoff(); ; ) {
      try {
        var response = runs.withDeadlineAfter(DEADLINE, TimeUnit.SECONDS).createRun(request);
        return response.getRun().getRunId();
      } catch (StatusRuntimeException error) {
        backoff.await(error);
      }
    }
  }

  /** Shows the events of a run, each once and in order, and returns the one that ends it. */
  private Event follow(String runId) throws InterruptedException {
    for (Backoff backoff = new Backoff(); ; ) {
      try (Context.CancellableContext call = Context.current().withCancellation()) {
        Event last = call.call(() -> read(runId, call, backoff));
        if (last != null) return last;
      } catch (StatusRuntimeException error) {
        backoff.await(error);
        continue;
      } catch (RuntimeException defect) {
        throw defect;
      } catch (Exception checked) {
        throw new IllegalStateException(checked);
      }
      throw new IllegalStateException(
          "run " + runId + " stopped after event " + cursor + ", before its end");
    }
  }

  /** Reads a run from the cursor on, over one connection; returns null if that ends too early. */
  private Event read(String runId, Context.CancellableContext call, Backoff backoff) {
    var request =
        StreamWorkflowRequest.newBuilder().setWorkflowRunId(runId).setAfterSequence(cursor).build();
    ScheduledFuture<?> silence = cancelLater(call);
    try {
      var responses = runs.streamWorkflow(request);
      while (responses.hasNext()) {
        var events = responses.next().getEventsList();
        silence.cancel(false); // a response without events is a heartbeat
        silence = cancelLater(call);
        backoff.reset();
        for (Event event : events) {
          cursor = event.getSequence();
          show(event);
          if (event.getTerminal()) return event;
        }
      }
      return null;
    } finally {
      silence.cancel(false);
    }
  }

  private ScheduledFuture<?> cancelLater(Context.CancellableContext call) {
    return timer.schedule(() -> call.cancel(null), SILENCE, TimeUnit.SECONDS);
  }

  /** Prints an event; skips events of unknown types. */
  private static void show(Event event) {
    switch (event.getPayloadCase()) {
      case TEXT_DELTA -> System.out.print(event.getTextDelta().getContent());
      case STEP_RETRY -> {
        var retry = event.getStepRetry();
        System.out.printf("%n[%s starts over: %s]%n", retry.getStepKey(), retry.getMessage());
      }
      case STEP_FINISH -> {
        if (event.getStepFinish().hasToolCall()) {
          System.out.printf("[%s]%n", event.getStepFinish().getStepKey());
        }
      }
      case AGENT_FINISH -> {
        System.out.printf("%n%d tokens%n", event.getAgentFinish().getUsage().getTotalTokens());
      }
      case ERROR -> {
        var error = event.getError();
        System.err.printf("%n%s: %s%n", error.getReason(), error.getMessage());
      }
      case RUN_CANCELLED -> System.err.println("\ncancelled");
      default -> {}
    }
    System.out.flush();
  }

  /** Returns a variable of the environment, or what to use where it is not set. */
  private static String setting(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }

  /** Returns TLS or plaintext, as POLOS_TLS says: 1, 0, or a PEM file with the CA to trust. */
  private static ChannelCredentials transport(String address, String key) throws IOException {
    String tls = setting("POLOS_TLS", "0");
    switch (tls) {
      case "1", "true" -> {
        return TlsChannelCredentials.create();
      }
      case "0", "false" -> {
        if (!key.isEmpty() && !LOCAL.matcher(address).lookingAt()) {
          throw new IOException(
              "the API key would travel to " + address + " in plaintext; set POLOS_TLS=1");
        }
        return InsecureChannelCredentials.create();
      }
      default -> {
        return TlsChannelCredentials.newBuilder().trustManager(new File(tls)).build();
      }
    }
  }

  /** Returns a channel that connects when it is first used. */
  private static ManagedChannel connect() throws IOException {
    String address = setting("POLOS_ADDRESS", "127.0.0.1:50051");
    String key = setting("POLOS_API_KEY", "");
    var headers = new Metadata(); // sent with each call
    if (!key.isEmpty()) headers.put(AUTHORIZATION, "Bearer " + key);
    return Grpc.newChannelBuilder(address, transport(address, key))
        .intercept(MetadataUtils.newAttachHeadersInterceptor(headers))
        .keepAliveTime(30, TimeUnit.SECONDS) // at least 10 s, or the service closes the connection
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
  }

  private static int run(String[] arguments) throws InterruptedException, IOException {
    ManagedChannel channel = connect();
    try {
      Run run = new Run(channel);
      Event last = run.follow(run.start(arguments[0], arguments[1]));
      return last.hasAgentFinish() ? 0 : 1;
    } catch (StatusRuntimeException error) {
      Status status = error.getStatus();
      String reason = refusal(error).isEmpty() ? status.getCode().toString() : refusal(error);
      System.err.println(reason + ": " + status.getDescription());
      return 2;
    } finally {
      channel.shutdownNow();
    }
  }

  /** Runs the program with an agent's id and an input. */
  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 2) {
      System.err.println("usage: Run AGENT INPUT");
      System.exit(2);
    }
    try {
      System.exit(run(arguments));
    } catch (IOException unusable) {
      System.err.println(unusable.getMessage());
      System.exit(2);
    }
  }
}

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams: the Processor API on persistent stores with changelogs, exactly once, two threads.
 *
 * <p>Its own sliding windows update every window that a tick is in, some 36,000 of an hour at ten ticks a second, so
 * the work is done in a processor, which its documentation has for custom logic. One entry of the store for each tick of
 * the last hour, and one for the running sums of each symbol, which are exact integers.
 */
public final class Windows implements Processor<String, byte[], String, byte[]> {
  private static final String[] NAMES = {"30s", "1m", "5m", "15m", "30m", "1h"};
  private static final long[] LENGTHS = {30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000};
  private static final long LATENESS = 10_000;
  private static final double SCALE = 1e8;
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS);
  private static final DateTimeFormatter MOMENT =
      DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSS'Z'").withZone(ZoneOffset.UTC);

  private ProcessorContext<String, byte[]> context;
  private KeyValueStore<String, byte[]> ticks;
  private KeyValueStore<String, byte[]> sums;

  @Override
  public void init(ProcessorContext<String, byte[]> context) {
    this.context = context;
    ticks = context.getStateStore("ticks");
    sums = context.getStateStore("sums");
  }

  @Override
  public void process(Record<String, byte[]> record) {
    String symbol;
    long timestamp;
    long units;
    try {
      JsonNode message = JSON.readTree(record.value());
      symbol = message.get("symbol").textValue();
      timestamp = OffsetDateTime.parse(message.get("timestamp").textValue()).toInstant().toEpochMilli();
      units = new BigDecimal(message.get("price").asText()).movePointRight(8).longValueExact();
    } catch (IOException | RuntimeException error) {
      return; // not a tick
    }
    State state = State.read(sums.get(symbol));
    if (state.accept(timestamp, units)) {
      Map.Entry<Long, Long> first;
      while ((first = state.waiting.firstEntry()) != null && first.getKey() <= state.largest - LATENESS) {
        state.waiting.pollFirstEntry();
        advance(state, symbol, first.getKey(), first.getValue(), record);
      }
      sums.put(symbol, state.written());
    }
  }

  private void advance(State state, String symbol, long timestamp, long units, Record<String, byte[]> cause) {
    state.last = timestamp;
    ticks.put(symbol + '|' + state.head, ByteBuffer.allocate(16).putLong(timestamp).putLong(units).array());
    state.head++;
    BigInteger exact = BigInteger.valueOf(units);
    BigInteger square = exact.multiply(exact);
    String head = "{\"timestamp\":\"" + MOMENT.format(Instant.ofEpochMilli(timestamp)) + "\",\"symbol\":\"" + symbol;
    StringBuilder statistics = new StringBuilder(700).append(head).append("\",\"stats\":[");
    StringBuilder scores = new StringBuilder(400).append(head).append("\",\"z_scores\":[");
    for (int window = 0; window < NAMES.length; window++) {
      BigInteger total = state.totals[window].add(exact);
      BigInteger squares = state.squares[window].add(square);
      long tail = state.tails[window];
      while (true) {
        String key = symbol + '|' + tail;
        ByteBuffer old = ByteBuffer.wrap(ticks.get(key));
        if (old.getLong() > timestamp - LENGTHS[window]) {
          break;
        }
        BigInteger gone = BigInteger.valueOf(old.getLong());
        total = total.subtract(gone);
        squares = squares.subtract(gone.multiply(gone));
        if (window == NAMES.length - 1) {
          ticks.delete(key);
        }
        tail++;
      }
      state.totals[window] = total;
      state.squares[window] = squares;
      state.tails[window] = tail;
      write(window, state.head - tail, total, squares, exact, statistics, scores);
    }
    context.forward(cause.withKey(symbol).withValue(bytes(statistics)), "moving");
    context.forward(cause.withKey(symbol).withValue(bytes(scores)), "zscore");
  }

  private static void write(int window, long count, BigInteger total, BigInteger squares, BigInteger price,
      StringBuilder statistics, StringBuilder scores) {
    BigInteger number = BigInteger.valueOf(count);
    double spread = number.multiply(squares).subtract(total.multiply(total)).doubleValue();
    String deviation = count > 1 ? Double.toString(Math.sqrt(spread / ((double) count * (count - 1))) / SCALE) : "null";
    String score = "null";
    if (spread > 0) {
      double distance = number.multiply(price).subtract(total).doubleValue();
      score = Double.toString(distance / Math.sqrt(count * spread / (count - 1)));
    }
    String comma = window == 0 ? "" : ",";
    statistics.append(comma).append("{\"window\":\"").append(NAMES[window])
        .append("\",\"avg_price\":").append(total.doubleValue() / count / SCALE)
        .append(",\"std_price\":").append(deviation).append(",\"count\":").append(count).append('}');
    scores.append(comma).append("{\"window\":\"").append(NAMES[window])
        .append("\",\"zscore_price\":").append(score).append('}');
  }

  private static byte[] bytes(StringBuilder message) {
    return message.append("]}").toString().getBytes(StandardCharsets.UTF_8);
  }

  /** What is kept for a symbol beside its ticks. */
  private static final class State {
    long largest = Long.MIN_VALUE;
    long last = Long.MIN_VALUE;
    long head;
    final long[] tails = new long[NAMES.length];
    final BigInteger[] totals = new BigInteger[NAMES.length];
    final BigInteger[] squares = new BigInteger[NAMES.length];
    final TreeMap<Long, Long> waiting = new TreeMap<>();

    /** Whether the tick is neither late nor a duplicate; it then waits until it is final. */
    boolean accept(long timestamp, long units) {
      boolean late = largest != Long.MIN_VALUE && timestamp < largest - LATENESS;
      if (late || timestamp == last || waiting.putIfAbsent(timestamp, units) != null) {
        return false;
      }
      largest = Math.max(largest, timestamp);
      return true;
    }

    static State read(byte[] kept) {
      State state = new State();
      if (kept == null) {
        java.util.Arrays.fill(state.totals, BigInteger.ZERO);
        java.util.Arrays.fill(state.squares, BigInteger.ZERO);
        return state;
      }
      ByteBuffer buffer = ByteBuffer.wrap(kept);
      state.largest = buffer.getLong();
      state.last = buffer.getLong();
      state.head = buffer.getLong();
      for (int window = 0; window < NAMES.length; window++) {
        state.tails[window] = buffer.getLong();
        state.totals[window] = integer(buffer);
        state.squares[window] = integer(buffer);
      }
      while (buffer.hasRemaining()) {
        state.waiting.put(buffer.getLong(), buffer.getLong());
      }
      return state;
    }

    byte[] written() {
      ByteBuffer buffer = ByteBuffer.allocate(24 + NAMES.length * 80 + waiting.size() * 16);
      buffer.putLong(largest).putLong(last).putLong(head);
      for (int window = 0; window < NAMES.length; window++) {
        buffer.putLong(tails[window]);
        put(buffer, totals[window]);
        put(buffer, squares[window]);
      }
      waiting.forEach((timestamp, units) -> buffer.putLong(timestamp).putLong(units));
      return java.util.Arrays.copyOf(buffer.array(), buffer.position());
    }

    private static BigInteger integer(ByteBuffer buffer) {
      byte[] digits = new byte[buffer.get()];
      buffer.get(digits);
      return new BigInteger(digits);
    }

    private static void put(ByteBuffer buffer, BigInteger number) {
      byte[] digits = number.toByteArray();
      buffer.put((byte) digits.length).put(digits);
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "kafka-streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("PEER_BOOTSTRAP"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("PEER_STATE"));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
    Topology topology = new Topology();
    topology
        .addSource("ticks-in", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), "btc-price")
        .addProcessor("windows", Windows::new, "ticks-in")
        .addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("ticks"), Serdes.String(), Serdes.ByteArray()).withCachingEnabled(), "windows")
        .addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore("sums"), Serdes.String(), Serdes.ByteArray()).withCachingEnabled(), "windows")
        .addSink("moving", "btc-price-moving", Serdes.String().serializer(), Serdes.ByteArray().serializer(), "windows")
        .addSink("zscore", "btc-price-zscore", Serdes.String().serializer(), Serdes.ByteArray().serializer(), "windows");
    KafkaStreams streams = new KafkaStreams(topology, settings);
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      streams.close(Duration.ofSeconds(10));
      ended.countDown();
    }));
    streams.start();
    ended.await();
  }
}

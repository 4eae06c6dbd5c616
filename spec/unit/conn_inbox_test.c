/* Frames that wait while their agent is suspended: counted, each once, and found again whatever is read in between. */
#include "conn_steps.h"

#include <string.h>

/* What decoding has cost: frames found, and bytes that were looked at for them. */
static struct {
	uint64_t frames, bytes;
} cost;

static void decode_counted(const struct protocol *protocol, const uint8_t *in, size_t n, unsigned limit,
			   struct session *session, struct batch *out)
{
	uint32_t known = session->scanned;
	codec_ops_of(codec_of(protocol)->kind)->decode(protocol, in, n, limit, session, out);
	cost.frames += out->count;
	cost.bytes += (out->count < limit ? n : out->consumed) - known;
}

static struct protocol_ops counted;

/* A client of an inbox in which all finds room, and whose decoding is counted. */
static struct client *join_counted(void)
{
	counted = *line.protocol.ops;
	counted.decode = decode_counted;
	line.protocol.ops = &counted;
	line.protocol.max_bytes = 1 << 20;
	rules.inbox_frames = 1 << 20;
	cost.frames = cost.bytes = 0;
	return join();
}

enum { LINES = 5000, TAIL_BYTES = 300000, ALL_BYTES = 2 * LINES + TAIL_BYTES };

/* Short lines, and behind them a long one without its end. */
static void put_lines(struct client *c)
{
	static char text[ALL_BYTES];
	for (int i = 0; i < LINES; i++)
		memcpy(text + 2L * i, "x\n", 2);
	memset(text + 2L * LINES, 'y', TAIL_BYTES);
	put_bytes(c, text, sizeof text);
}

static void sleep_at_each(struct client *c, const char *text)
{
	(void)text;
	conn_of(c)->first.reading = NULL;
	channel_set_busy(channel_of(c), true);
}

/* The counts are linear: twice would be a quarter of a million frames, or a gigabyte. */
static void expect_linear_cost(void)
{
	assert_in_range(cost.frames, LINES, 3 * LINES + 2 * BATCH_MAX);
	assert_in_range(cost.bytes, ALL_BYTES, 4 * ALL_BYTES);
}

static void what_waits_is_counted_once(void **state)
{
	(void)state;
	struct client *c = join_counted();
	c->on_frame = sleep_at_each;
	put_lines(c);
	for (unsigned i = 1; i <= LINES; i++) {
		assert_int_equal(c->frames_seen, i);
		assert_int_equal(conn_of(c)->waiting_frames, LINES - i);
		channel_set_busy(channel_of(c), false);
		world_run();
	}
	put(c, "\n");
	assert_int_equal(c->frames_seen, LINES + 1);
	assert_int_equal(conn_of(c)->waiting_frames, 0);
	expect_linear_cost();
}

/* As conn:read() does: every other frame is asked for. */
static void read_at_each(struct client *c, const char *text)
{
	bool was_reading = conn_of(c)->first.reading;
	(void)text;
	conn_of(c)->first.reading = was_reading ? NULL : &line.protocol;
	channel_set_busy(channel_of(c), true);
}

static void what_waits_is_counted_once_when_the_agent_reads_and_sleeps(void **state)
{
	(void)state;
	struct client *c = join_counted();
	c->on_frame = read_at_each;
	put_lines(c);
	for (unsigned i = 2; i <= LINES; i += 2) {
		assert_int_equal(c->frames_seen, i);
		assert_int_equal(conn_of(c)->waiting_frames, LINES - i);
		channel_set_busy(channel_of(c), false);
		world_run();
	}
	expect_linear_cost();
}

/* Twenty bytes at a time are not of this framing: what was counted is an estimate then, and is not counted anew. */
static void what_waits_is_counted_once_when_the_agent_reads_in_another_framing(void **state)
{
	(void)state;
	struct codec twenty = { .kind = CODEC_FIXED, .fixed_bytes = 20, .protocol.max_bytes = 100 };
	struct client *c = join_counted();
	assert_null(codec_init(&twenty));
	c->on_frame = sleep_at_each;
	put_lines(c);
	for (unsigned i = 1; i + 10 < LINES; i += 11) {
		assert_int_equal(conn_of(c)->counted_bytes, 2 * (LINES - i));
		conn_of(c)->first.reading = &twenty.protocol;
		channel_set_busy(channel_of(c), true);
		world_run();
		channel_set_busy(channel_of(c), false);
		world_run();
	}
	expect_linear_cost();
}

static void the_bound_holds_after_what_was_counted(void **state)
{
	(void)state;
	struct client *c = join();
	c->on_frame = sleep_at_each;
	for (unsigned i = 0; i < 200; i++) {
		put(c, "a\nb\nc\n");
		channel_set_busy(channel_of(c), false);
		world_run();
		assert_in_range(conn_of(c)->waiting_frames, 0, 16 + BATCH_MAX);
	}
	assert_false(c->memory.watched & STREAM_READ);
	while (c->frames_seen < 600) {
		channel_set_busy(channel_of(c), false);
		world_run();
	}
	assert_int_equal(conn_of(c)->waiting_frames, 0);
	assert_true(c->memory.watched & STREAM_READ);
}

/* Where the search for one framing's end had come to says nothing of another's. */
static void what_was_searched_for_one_framing_is_searched_for_another(void **state)
{
	(void)state;
	struct codec ends = {
		.kind = CODEC_DELIMITER, .protocol.max_bytes = 100, .delimiter = "\r\n", .delimiter_bytes = 2
	};
	assert_null(codec_init(&ends));
	struct client *c = join();
	assert_int_equal(conn_set_protocol(conn_of(c), &ends.protocol, sizeof ends), 0);
	c->on_frame = read_at_each;
	put(c, "go\r\none\ntwo");
	assert_string_equal(c->seen, "go|one|");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(what_waits_is_counted_once),
		WITH_CONNS(what_waits_is_counted_once_when_the_agent_reads_and_sleeps),
		WITH_CONNS(what_waits_is_counted_once_when_the_agent_reads_in_another_framing),
		WITH_CONNS(the_bound_holds_after_what_was_counted),
		WITH_CONNS(what_was_searched_for_one_framing_is_searched_for_another),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

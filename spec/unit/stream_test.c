/* Stacks of streams: connections whose stream has a beginning, an end and needs of its own. */
#include "conn_steps.h"

#include "base/ticks.h"
#include "net/poller.h"
#include "support/nasty.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { OPENING_MS = 100, CALLS = 60, ECHOES = 3000 };

static unsigned free_slot(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return slot;
}

static struct client *join_nasty(uint32_t (*choose)(uint32_t bound))
{
	struct client *c = world_join_nasty(free_slot(), 1, choose, 0);
	c->echo = true;
	return c;
}

static void an_agent_begins_when_its_stream_has_opened(void **state)
{
	(void)state;
	struct client *c = join_nasty(NULL);
	assert_int_equal(c->opened, 0);
	assert_int_equal(conn_of(c)->state, CONN_OPENING);
	put(c, "one\ntwo\n");
	assert_int_equal(c->opened, 1);
	expect_output(c, "one\ntwo\n");
	hang_up(c);
	expect_end(c, REASON_PEER);
}

static void layers_stand_on_layers(void **state)
{
	(void)state;
	struct client *c = world_join_nasty(free_slot(), 2, NULL, 0);
	c->echo = true;
	assert_int_equal(conn_of(c)->state, CONN_OPENING);
	put(c, "one\ntwo\n");
	expect_output(c, "one\ntwo\n");
	conn_shutdown(conn_of(c));
	world_run();
	/* The last word of each, that of the upper one as the lower one passes it on. */
	assert_int_equal(c->memory.outward.bytes, 2);
	assert_int_equal(c->memory.outward.first[0], NASTY_END ^ NASTY_KEY);
	assert_int_equal(c->memory.outward.first[1], NASTY_END);
	assert_true(c->memory.our_shut);
	hang_up(c);
	expect_end(c, REASON_PEER);
}

/* The peer's fillers are taken from it again. */
static struct client *join_silent(void)
{
	struct client *c = join_nasty(NULL);
	c->memory.inward.bytes = 0;
	world_run();
	return c;
}

static void who_does_not_open_in_time_is_ended(void **state)
{
	(void)state;
	rules.timeouts.opening = OPENING_MS;
	rules.timeouts.idle = 1;
	struct client *c = join_silent();
	wait_ms(OPENING_MS - 1);
	assert_int_equal(c->closed, 0);
	wait_ms(1);
	expect_end(c, REASON_TLS);
	assert_int_equal(c->opened, 0);
	assert_int_equal(c->timeouts, 0);
}

/* Others have their turn first: it goes on in the next poll. */
static void an_opening_waits_where_others_have_taken_their_time(void **state)
{
	(void)state;
	struct client *c = join_nasty(NULL);
	host.opening_ticks = UINT64_MAX;
	memory_stream_report(&c->memory);
	assert_int_equal(conn_of(c)->state, CONN_OPENING);
	assert_int_equal(c->opened, 0);
	conn_host_turn(&host, now_ms);
	world_run();
	assert_int_equal(c->opened, 1);
	put(c, "one\n");
	expect_output(c, "one\n");
}

/* Each of these handshakes takes more time than all of them have in a turn. */
static void take_long(struct conn *conn)
{
	(void)conn;
	uint64_t began = ticks_now();
	while (ticks_now() - began <= CONN_TICKS_PER_STAGE)
		;
}

static unsigned opened_of(struct client *const *some, unsigned n)
{
	unsigned opened = 0;
	for (unsigned i = 0; i < n; i++)
		opened += some[i]->opened;
	return opened;
}

static void a_drain_gives_openings_as_much_of_a_turn_as_others_do(void **state)
{
	(void)state;
	enum { SOME = 5 };
	struct client *some[SOME];
	host.admit = take_long;
	for (unsigned i = 0; i < SOME; i++)
		some[i] = join_nasty(NULL);
	conn_host_drain(&host, 0);
	for (unsigned turn = 1; turn <= SOME; turn++) {
		assert_int_equal(conn_host_turn(&host, now_ms), turn < SOME);
		assert_int_equal(opened_of(some, SOME), turn);
	}
	world_run();
	for (unsigned i = 0; i < SOME; i++)
		expect_end(some[i], REASON_DRAIN);
}

static void what_had_come_in_time_opens_it_however_late_it_is_read(void **state)
{
	(void)state;
	rules.timeouts.opening = OPENING_MS;
	struct client *c = join_nasty(NULL);
	now_ms += 10 * OPENING_MS;
	conn_host_turn(&host, now_ms);
	assert_int_equal(c->opened, 1);
	put(c, "one\n");
	expect_output(c, "one\n");
	hang_up(c);
}

static void a_drain_does_not_wait_for_who_has_not_opened(void **state)
{
	(void)state;
	struct client *c = join_silent();
	conn_drain(conn_of(c));
	world_run();
	expect_end(c, REASON_DRAIN);
	assert_int_equal(c->opened, 0);
}

static void a_reset_ends_who_has_not_opened(void **state)
{
	(void)state;
	struct client *c = join_silent();
	memory_stream_reset(&c->memory);
	world_run();
	expect_end(c, REASON_RESET);
}

static void its_end_of_stream_waits_until_it_can_be_written(void **state)
{
	(void)state;
	struct client *c = join_nasty(NULL);
	put(c, "one\n");
	expect_output(c, "one\n");
	c->memory.window_bytes = 0;
	conn_shutdown(conn_of(c));
	world_run();
	assert_false(c->memory.our_shut);
	assert_false(conn_of(c)->shut);
	c->memory.window_bytes = 10;
	world_run();
	assert_true(c->memory.our_shut);
	assert_int_equal(c->memory.outward.bytes, 1);
	assert_int_equal(c->memory.outward.first[0], NASTY_END);
	put(c, "it still listens\n");
	assert_int_equal(c->frames_seen, 2);
	hang_up(c);
	expect_end(c, REASON_PEER);
}

static void its_last_word_is_written_before_it_is_closed(void **state)
{
	(void)state;
	struct client *c = join_nasty(NULL);
	put(c, "one\n");
	expect_output(c, "one\n");
	c->memory.window_bytes = 0;
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	assert_false(c->memory.closing);
	c->memory.window_bytes = 10;
	world_run();
	expect_end(c, REASON_AGENT);
	assert_int_equal(c->memory.outward.first[c->memory.outward.bytes - 1], NASTY_END);
}

/* As of output that nobody takes: ten seconds where timeout.write is off. */
static void who_takes_no_last_word_is_closed_all_the_same(void **state)
{
	(void)state;
	struct client *c = join_nasty(NULL);
	put(c, "one\n");
	c->memory.window_bytes = 0;
	conn_close(conn_of(c), REASON_AGENT, CLOSE_FLUSH);
	world_run();
	wait_ms(9999);
	assert_int_equal(c->closed, 0);
	wait_ms(1);
	expect_end(c, REASON_AGENT);
}

static void wherever_it_fails_it_ends(void **state)
{
	(void)state;
	unsigned failed = 0;
	for (unsigned n = 1; n <= CALLS; n++) {
		struct client *c = world_join_nasty(free_slot(), 1 + n % LAYERS_MAX, at_random, n);
		c->echo = true;
		for (int i = 0; i < 5 && !c->closed; i++)
			put(c, "one\ntwo\nthree\n");
		if (!c->closed)
			conn_shutdown(conn_of(c));
		hang_up(c);
		if (!c->closed) /* it wants to write, and has sent its end */
			conn_close(conn_of(c), REASON_AGENT, CLOSE_NOW);
		world_run();
		assert_int_equal(c->closed, 1);
		failed += c->reason == REASON_TLS;
		clients[c->slot] = NULL;
		memory_stream_deinit(&c->memory);
		free(c);
	}
	assert_in_range(failed, CALLS / 4, CALLS);
}

static void a_piece_is_shared_whatever_the_stream(void **state)
{
	(void)state;
	char text[4 * OUTQ_SHARE_BYTES], got[2 * sizeof text];
	memset(text, 's', sizeof text - 1);
	text[sizeof text - 1] = '\n';
	rules.send_buffer_bytes = 1 << 20; /* it leaves at the end of the event */
	struct client *plain = join(), *nasty = join_nasty(NULL);
	struct shared *shared = shared_new(text, sizeof text);
	put(nasty, "x\n");
	assert_int_equal(channel_share(channel_of(plain), shared, 0, shared->len, 1), 0);
	assert_int_equal(channel_share(channel_of(nasty), shared, 0, shared->len, 1), 0);
	assert_int_equal(atomic_load(&shared->refs), 3);
	world_run();
	assert_int_equal(atomic_load(&shared->refs), 1);
	assert_int_equal(world_take(plain, got, sizeof got), sizeof text);
	assert_memory_equal(got, text, sizeof text);
	assert_int_equal(world_take(nasty, got, sizeof got), 2 + sizeof text);
	assert_memory_equal(got, "x\n", 2);
	assert_memory_equal(got + 2, text, sizeof text);
	shared_drop(shared);
}

/* Of which one goes away, and takes nothing along. */
static void who_ends_lets_go_of_what_it_shares(void **state)
{
	(void)state;
	static char text[2 * OUTQ_SHARE_BYTES];
	struct client *one = join(), *other = join();
	struct shared *shared = shared_new(text, sizeof text);
	rules.slow = SLOW_PAUSE;
	one->memory.window_bytes = other->memory.window_bytes = 100;
	channel_share(channel_of(one), shared, 0, shared->len, 1);
	channel_share(channel_of(other), shared, 0, shared->len, 1);
	shared_drop(shared);
	world_run();
	assert_int_equal(conn_pending_bytes(conn_of(one)), sizeof text - 100);
	conn_close(conn_of(one), REASON_KICK, CLOSE_NOW);
	world_run();
	expect_end(one, REASON_KICK);
	assert_int_equal(atomic_load(&shared->refs), 1);
	other->memory.window_bytes = SIZE_MAX;
	world_run();
	assert_int_equal(other->memory.outward.bytes, sizeof text);
}

/* ---- over sockets ---- */

struct peer_end {
	struct client *client; /* whose other end it is */
	int fd;
	bool is_nasty;
	unsigned put, got; /* numbers, in lines */
	char line[16];
	size_t line_bytes;
	char wire[32]; /* that is being written */
	size_t wire_at, wire_bytes;
};

static void next_line(struct peer_end *end)
{
	end->wire_bytes = (size_t)snprintf(end->wire, sizeof end->wire, "%u\n", ++end->put);
	end->wire_at = 0;
	if (end->is_nasty)
		nasty_translate(end->wire, end->wire_bytes, NASTY_KEY);
}

static void write_some(struct peer_end *end)
{
	while (end->put < ECHOES || end->wire_at < end->wire_bytes) {
		if (end->wire_at == end->wire_bytes)
			next_line(end);
		ssize_t n = write(end->fd, end->wire + end->wire_at, end->wire_bytes - end->wire_at);
		if (n < 0)
			return;
		end->client->memory.put_bytes += (size_t)n;
		end->wire_at += (size_t)n;
	}
}

static void take_byte(struct peer_end *end, char byte)
{
	if (end->is_nasty && (byte == NASTY_FILLER || byte == NASTY_ASK))
		return;
	if (end->is_nasty)
		nasty_translate(&byte, 1, NASTY_KEY);
	if (byte != '\n') {
		assert_true(end->line_bytes < sizeof end->line - 1);
		end->line[end->line_bytes++] = byte;
		return;
	}
	end->line[end->line_bytes] = '\0';
	end->line_bytes = 0;
	assert_int_equal(strtoul(end->line, NULL, 10), ++end->got);
}

/* It may want to read before it writes the last of them. */
static void write_filler(struct peer_end *end)
{
	static const char FILLER = NASTY_FILLER;
	if (end->is_nasty && end->put == ECHOES && end->wire_at == end->wire_bytes)
		(void)!write(end->fd, &FILLER, 1);
}

static void read_some(struct peer_end *end)
{
	char bytes[4096];
	ssize_t n = read(end->fd, bytes, 1 + at_random(sizeof bytes));
	for (ssize_t i = 0; i < n; i++)
		take_byte(end, bytes[i]);
}

static void echo_over_sockets(bool is_nasty)
{
	static const char HELLO[NASTY_HELLO_BYTES] = { NASTY_FILLER };
	uv_loop_t loop;
	struct poller poller;
	int fds[2];
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	struct client *c = world_join_socket(free_slot(), &poller, fds[0], is_nasty, at_random);
	struct peer_end end = { .client = c, .fd = fds[1], .is_nasty = is_nasty };
	c->echo = true;
	if (is_nasty)
		assert_int_equal(write(end.fd, HELLO, sizeof HELLO), sizeof HELLO);
	while (end.got < ECHOES) {
		write_some(&end);
		write_filler(&end);
		read_some(&end);
		serve_polled(&poller, 0);
	}
	shutdown(end.fd, SHUT_WR);
	while (!c->gone)
		serve_polled(&poller, -1);
	assert_int_equal(c->reason, REASON_PEER);
	close(end.fd);
	poller_deinit(&poller);
	uv_loop_close(&loop);
}

/* What it sends in pieces of 40 bytes is one write for each, and the socket has room for all of them. */
static void over_sockets_a_piece_waits_for_no_event_while_there_is_room(void **state)
{
	enum { BYTES = 4000 };
	static const char HELLO[NASTY_HELLO_BYTES] = { NASTY_FILLER };
	static char text[BYTES], got[2 * BYTES];
	uv_loop_t loop;
	struct poller poller;
	int fds[2];
	bool below;
	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	rules.send_buffer_bytes = 2 * BYTES;
	struct client *c = world_join_socket(free_slot(), &poller, fds[0], true, NULL);
	assert_int_equal(write(fds[1], HELLO, sizeof HELLO), sizeof HELLO);
	while (!c->opened)
		serve_polled(&poller, -1);
	assert_int_equal(read(fds[1], got, sizeof got), NASTY_HELLO_BYTES);
	memset(text, 'x', sizeof text);
	assert_int_equal(channel_send(channel_of(c), text, sizeof text, &below), 0);
	conn_host_turn(&host, now_ms);
	serve_polled(&poller, 0);
	serve_polled(&poller, 0);
	assert_int_equal(conn_pending_bytes(conn_of(c)), 0);
	size_t n = 0;
	while (n < BYTES + 1)
		n += (size_t)read(fds[1], got + n, sizeof got - n);
	close(fds[1]);
	while (!c->gone)
		serve_polled(&poller, -1);
	poller_deinit(&poller);
	uv_loop_close(&loop);
}

static void who_takes_a_reply_at_once_is_not_slow_whatever_its_pieces(void **state)
{
	(void)state;
	static char text[5000];
	bool below;
	rules.slow = SLOW_CLOSE;
	struct client *c = join_nasty(NULL);
	world_run();
	memset(text, 'x', sizeof text);
	assert_int_equal(channel_send(channel_of(c), text, sizeof text, &below), 0);
	assert_true(below);
	world_run();
	assert_int_equal(c->closed, 0);
	hang_up(c);
	expect_end(c, REASON_PEER);
}

static void over_sockets_all_arrives_in_order(void **state)
{
	(void)state;
	echo_over_sockets(false);
	echo_over_sockets(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CONNS(an_agent_begins_when_its_stream_has_opened),
		WITH_CONNS(layers_stand_on_layers),
		WITH_CONNS(who_does_not_open_in_time_is_ended),
		WITH_CONNS(an_opening_waits_where_others_have_taken_their_time),
		WITH_CONNS(a_drain_gives_openings_as_much_of_a_turn_as_others_do),
		WITH_CONNS(what_had_come_in_time_opens_it_however_late_it_is_read),
		WITH_CONNS(a_drain_does_not_wait_for_who_has_not_opened),
		WITH_CONNS(a_reset_ends_who_has_not_opened),
		WITH_CONNS(its_end_of_stream_waits_until_it_can_be_written),
		WITH_CONNS(its_last_word_is_written_before_it_is_closed),
		WITH_CONNS(who_takes_no_last_word_is_closed_all_the_same),
		WITH_CONNS(wherever_it_fails_it_ends),
		WITH_CONNS(a_piece_is_shared_whatever_the_stream),
		WITH_CONNS(who_ends_lets_go_of_what_it_shares),
		WITH_CONNS(who_takes_a_reply_at_once_is_not_slow_whatever_its_pieces),
		WITH_CONNS(over_sockets_a_piece_waits_for_no_event_while_there_is_room),
		WITH_CONNS(over_sockets_all_arrives_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

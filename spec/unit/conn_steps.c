#include "conn_steps.h"

#include "net/poller.h"

#include <string.h>

char hundred[] = "123456789012345678901234567890123456789012345678901234567890"
		 "123456789012345678901234567890123456789\n";

int conns_begin(void **state)
{
	(void)state;
	return world_start(0);
}

int conns_end(void **state)
{
	(void)state;
	world_end();
	return 0;
}

struct conn *conn_of(struct client *client)
{
	return &client->conn;
}

struct channel *channel_of(struct client *client)
{
	return &client->conn.first;
}

struct client *join(void)
{
	unsigned slot = 0;
	while (clients[slot])
		slot++;
	return world_join(slot);
}

void wait_ms(uint64_t ms)
{
	now_ms += ms;
	conn_host_turn(&host, now_ms);
	world_run();
}

void put_bytes(struct client *client, const void *bytes, size_t n)
{
	world_put(client, bytes, n);
	world_run();
}

void put(struct client *client, const char *text)
{
	put_bytes(client, text, strlen(text));
}

void hang_up(struct client *client)
{
	memory_stream_half_close(&client->memory);
	world_run();
}

void expect_output(struct client *client, const char *text)
{
	char got[4096];
	size_t n = world_take(client, got, sizeof got - 1);
	got[n] = '\0';
	assert_string_equal(got, text);
	world_run();
}

void expect_open(struct client *client)
{
	assert_int_equal(client->closed, 0);
	assert_true(conn_is_open(conn_of(client)));
}

void expect_end(struct client *client, enum close_reason reason)
{
	assert_int_equal(client->closed, 1);
	assert_string_equal(reason_name(client->reason), reason_name(reason));
	assert_int_equal(client->gone, 1);
	assert_true(count_read(&counters.closed[reason]) > 0);
}

void expect_timeout_after(struct client *c, uint64_t ms, enum timeout_kind kind, enum close_reason reason)
{
	uint64_t from_ms = now_ms;
	wait_ms(ms - 1);
	expect_open(c);
	assert_int_equal(c->timeouts, 0);
	assert_true(conn_host_next_ms(&host) <= now_ms + 1);
	wait_ms(1);
	assert_int_equal(c->timeouts, 1);
	assert_int_equal(c->timeout_kind, kind);
	assert_int_equal(c->ended_ms, from_ms + ms);
	hang_up(c); /* a partial frame makes it linger */
	expect_end(c, reason);
}

uint64_t at_random_seed = 20261129;

uint32_t at_random(uint32_t bound)
{
	at_random_seed ^= at_random_seed << 13;
	at_random_seed ^= at_random_seed >> 7;
	at_random_seed ^= at_random_seed << 17;
	return (uint32_t)(at_random_seed >> 16) % bound;
}

void serve_polled(struct poller *poller, int timeout_ms)
{
	poller_wait(poller, timeout_ms);
	poller_serve(poller);
	conn_host_settle(&host);
	conn_host_turn(&host, now_ms);
	poller_forget(poller);
}

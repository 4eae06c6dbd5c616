/* A flow that has a socket of its own from the start: a connection out over UDP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"
#include "net/datagram.h"
#include "stream/flow.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { MAX_BYTES = 100, WAITING_MAX = 4 };

static uv_loop_t loop;
static struct poller poller;
static struct buf_pool pool;
static struct counters counters;
static struct flow_host *host;
static struct flow_socket own;
static struct flow flow;
static struct stream_user user;
static unsigned readable, user_closed, socket_closed, refused_times;
static int refused;
static int peer; /* a socket; -1: nobody is there */

static void flow_on_ready(struct stream_user *io, unsigned events)
{
	(void)io;
	readable += (events & STREAM_READ) != 0;
}

static void flow_on_closed(struct stream_user *io)
{
	(void)io;
	user_closed++;
}

static const struct stream_events FLOW_EVENTS = { flow_on_ready, flow_on_closed };

static void on_own_closed(struct flow_socket *socket)
{
	assert_ptr_equal(socket, &own);
	socket_closed++;
}

static void on_own_refused(struct flow_socket *socket, int err)
{
	assert_ptr_equal(socket, &own);
	refused_times++;
	refused = err;
}

static const struct flow_socket_ops OWN_OPS = { .closed = on_own_closed, .refused = on_own_refused };

static void one_turn(void)
{
	poller_wait(&poller, 0);
	poller_serve(&poller);
	flow_host_flush(host);
	flow_host_forget(host);
	poller_forget(&poller);
}

static int loopback_socket(struct sockaddr_in *address)
{
	socklen_t bytes = sizeof *address;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
	return fd;
}

static int begin_flow(void **state)
{
	struct sockaddr_in address, local;
	struct sockaddr_storage mapped = { 0 };
	struct sockaddr_in6 to;
	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	buf_pool_init(&pool, 0, 4);
	memset(&counters, 0, sizeof counters);
	host = flow_host_new(&poller, &pool, &counters);
	peer = loopback_socket(&address);
	int fd = loopback_socket(&local);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&local, sizeof local), 0);
	memcpy(&mapped, &address, sizeof address);
	address_map(&mapped, &to);
	own = (struct flow_socket){ .only = &flow };
	flow = (struct flow){ 0 };
	user = (struct stream_user){ .events = &FLOW_EVENTS };
	readable = user_closed = socket_closed = refused_times = 0;
	refused = 0;
	assert_int_equal(flow_socket_open(&own, host, fd, &OWN_OPS), 0);
	flow_begin(&flow, &user, &own, &to, MAX_BYTES, WAITING_MAX);
	assert_int_equal(stream_watch(&user, STREAM_READ), 0);
	return 0;
}

static int end_flow(void **state)
{
	(void)state;
	stream_close(&user, false);
	one_turn();
	assert_int_equal(user_closed, 1);
	assert_int_equal(socket_closed, 1);
	assert_int_equal(pool.lent_bytes, 0);
	if (peer >= 0)
		close(peer);
	flow_host_free(host);
	buf_pool_deinit(&pool);
	poller_deinit(&poller);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

static void say(const char *text)
{
	uint8_t record[DATAGRAM_HEAD_BYTES + MAX_BYTES];
	size_t len = strlen(text);
	datagram_put_head(record, len);
	memcpy(record + DATAGRAM_HEAD_BYTES, text, len);
	assert_int_equal(stream_write(&user, record, DATAGRAM_HEAD_BYTES + len), DATAGRAM_HEAD_BYTES + len);
}

static void expect_heard(const char *text)
{
	char heard[MAX_BYTES + 1];
	ssize_t n = recv(peer, heard, sizeof heard, 0);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(heard, text, strlen(text));
}

static void expect_read(const char *text)
{
	uint8_t record[DATAGRAM_HEAD_BYTES + MAX_BYTES];
	assert_int_equal(stream_read(&user, record, sizeof record), DATAGRAM_HEAD_BYTES + strlen(text));
	assert_memory_equal(record + DATAGRAM_HEAD_BYTES, text, strlen(text));
}

static void sends_datagrams_with_the_turn(void **state)
{
	(void)state;
	say("one");
	say("");
	say("two");
	assert_int_equal(recv(peer, &(char){ 0 }, 1, 0), -1);
	one_turn();
	expect_heard("one");
	expect_heard("");
	expect_heard("two");
	assert_int_equal(refused_times, 0);
}

static void keeps_what_nobody_has_read_and_drops_the_rest(void **state)
{
	(void)state;
	assert_int_equal(stream_watch(&user, 0), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(send(peer, "x", 1, 0), 1);
	char large[MAX_BYTES + 1] = { 0 };
	assert_int_equal(send(peer, large, sizeof large, 0), sizeof large);
	one_turn();
	assert_int_equal(readable, 0);
	assert_int_equal(count_read(&counters.dropped_datagrams), 10 - WAITING_MAX);
	assert_int_equal(count_read(&counters.truncated_datagrams), 1);
	assert_int_equal(stream_watch(&user, STREAM_READ), 0);
	one_turn();
	assert_true(readable > 0);
	uint8_t records[1000];
	assert_int_equal(stream_read(&user, records, sizeof records),
			 WAITING_MAX * (DATAGRAM_HEAD_BYTES + 1));
}

static void hears_nobody_else(void **state)
{
	struct sockaddr_in address, theirs;
	socklen_t bytes = sizeof address;
	int stranger = loopback_socket(&theirs);
	(void)state;
	assert_int_equal(getsockname(own.polled.fd, (struct sockaddr *)&address, &bytes), 0);
	sendto(stranger, "forged", 6, 0, (struct sockaddr *)&address, bytes);
	assert_int_equal(send(peer, "true", 4, 0), 4);
	one_turn();
	expect_read("true");
	close(stranger);
}

/* One that had come before the socket was connected is still in its queue. */
static void drops_what_came_before_it_was_connected(void **state)
{
	struct sockaddr_in address, theirs;
	socklen_t bytes = sizeof address;
	struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	int stranger = loopback_socket(&theirs), fd = own.polled.fd;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = flow.peer.sin6_port };
	(void)state;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
	assert_int_equal(connect(fd, &nobody, sizeof nobody), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, bytes), 0);
	assert_int_equal(sendto(stranger, "forged", 6, 0, (struct sockaddr *)&address, bytes), 6);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	one_turn();
	assert_int_equal(readable, 0);
	assert_int_equal(count_read(&counters.dropped_datagrams), 1);
	close(stranger);
}

static void tells_that_nobody_is_there(void **state)
{
	(void)state;
	close(peer);
	peer = -1;
	say("one");
	one_turn();
	one_turn();
	assert_int_equal(refused_times, 1);
	assert_int_equal(refused, UV_ECONNREFUSED);
	/* The next one is sent all the same, and tells it once more: now by the socket's own sending. */
	say("two");
	flow_host_flush(host);
	say("three");
	flow_host_flush(host);
	assert_int_equal(refused_times, 2);
	one_turn();
	assert_int_equal(refused_times, 3);
	assert_int_equal(count_read(&counters.unsent_datagrams), 0);
}

#define WITH_FLOW(TEST) cmocka_unit_test_setup_teardown(TEST, begin_flow, end_flow)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FLOW(sends_datagrams_with_the_turn),
		WITH_FLOW(keeps_what_nobody_has_read_and_drops_the_rest),
		WITH_FLOW(hears_nobody_else),
		WITH_FLOW(drops_what_came_before_it_was_connected),
		WITH_FLOW(tells_that_nobody_is_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

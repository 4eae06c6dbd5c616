/*
 * A flow gets a socket of its own, in an upgrade. Between bind() and connect() that socket is nobody's: nothing may
 * come to it, for it would be another flow's, which may be another worker's. connect() is ours here, to send just then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/datagrams.h"
#include "stream/flow.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

enum { PEERS = 12, WORKERS = 2, MAX_BYTES = 100, WAITING_MAX = 100 };

static uv_loop_t loop;
static struct poller poller;
static struct buf_pool pool;
static struct counters counters;
static struct flow_host *host;
static struct flow_socket shared[WORKERS], own[PEERS];
static struct flow flows[PEERS];
static struct stream_user users[PEERS];
static int peers[PEERS];
static unsigned begun, closed, connected, strays;
static bool is_parting;

static void send_all(void)
{
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(send(peers[i], "x", 1, 0), 1);
}

int connect(int fd, const struct sockaddr *to, socklen_t bytes)
{
	char byte;
	if (is_parting) {
		connected++;
		send_all();
		while (recv(fd, &byte, 1, MSG_DONTWAIT) >= 0)
			strays++;
	}
	return (int)syscall(SYS_connect, fd, to, bytes);
}

static void part_on_ready(struct stream_user *io, unsigned events)
{
	(void)io;
	(void)events;
}

static void part_on_closed(struct stream_user *io)
{
	(void)io;
	closed++;
}

static const struct stream_events PART_EVENTS = { part_on_ready, part_on_closed };

static void on_begin(struct flow_socket *socket, const struct sockaddr_in6 *peer)
{
	assert_true(begun < PEERS);
	users[begun] = (struct stream_user){ .events = &PART_EVENTS };
	flow_begin(&flows[begun], &users[begun], socket, peer, MAX_BYTES, WAITING_MAX);
	begun++;
}

static void part_socket_closed(struct flow_socket *socket)
{
	(void)socket;
}

static const struct flow_socket_ops PART_OPS = { .begin = on_begin, .closed = part_socket_closed };

static void part_turn(void)
{
	poller_wait(&poller, 0);
	poller_serve(&poller);
	flow_host_flush(host);
	flow_host_forget(host);
	poller_forget(&poller);
}

static int shared_socket(struct sockaddr_storage *address, socklen_t *bytes)
{
	int one = 1, zero = 0;
	int fd = socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (address->ss_family == AF_INET6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
	datagrams_prepare(fd, address->ss_family == AF_INET6, true);
	assert_int_equal(bind(fd, (struct sockaddr *)address, *bytes), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, bytes), 0);
	return fd;
}

static void open_all(struct sockaddr_storage *address, socklen_t bytes)
{
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(poller_init(&poller, &loop), 0);
	buf_pool_init(&pool, 0, 4);
	memset(&counters, 0, sizeof counters);
	memset(own, 0, sizeof own);
	memset(flows, 0, sizeof flows);
	host = flow_host_new(&poller, &pool, &counters);
	for (int i = 0; i < WORKERS; i++) {
		shared[i] = (struct flow_socket){ 0 };
		int fd = shared_socket(address, &bytes);
		assert_int_equal(flow_socket_open(&shared[i], host, fd, &PART_OPS), 0);
	}
	assert_int_equal(datagrams_steer(shared[0].polled.fd, WORKERS), 0);
	begun = closed = connected = strays = 0;
}

static void connect_peers(const char *host_text, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = port };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = port };
	bool is_ipv6 = strchr(host_text, ':');
	if (is_ipv6)
		assert_int_equal(inet_pton(AF_INET6, host_text, &in6.sin6_addr), 1);
	else
		assert_int_equal(inet_pton(AF_INET, host_text, &in.sin_addr), 1);
	for (int i = 0; i < PEERS; i++) {
		peers[i] = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		int err = is_ipv6 ? connect(peers[i], (struct sockaddr *)&in6, sizeof in6)
				  : connect(peers[i], (struct sockaddr *)&in, sizeof in);
		assert_int_equal(err, 0);
	}
}

static void close_all(void)
{
	for (int i = 0; i < PEERS; i++) {
		stream_close(&users[i], false);
		close(peers[i]);
	}
	for (int i = 0; i < WORKERS; i++)
		flow_socket_end(&shared[i]);
	part_turn();
	assert_int_equal(closed, PEERS);
	flow_host_free(host);
	buf_pool_deinit(&pool);
	poller_deinit(&poller);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* A listener at `address`, asked by peers at `to`. */
static void part_with(struct sockaddr_storage *address, socklen_t bytes, const char *to)
{
	char byte;
	open_all(address, bytes);
	connect_peers(to,
		      ((struct sockaddr_in *)(void *)address)->sin_port); /* both have it in the same place */
	send_all();
	part_turn();
	assert_int_equal(begun, PEERS);
	is_parting = true;
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(flow_part(&flows[i], &own[i]), 0);
	is_parting = false;
	assert_int_equal(connected, PEERS);
	assert_int_equal(strays, 0);
	for (int i = 0; i < PEERS; i++)
		while (recv(own[i].polled.fd, &byte, 1, MSG_DONTWAIT) >= 0)
			;
	/* From now on each hears its own peer, and the shared ones nobody. */
	part_turn();
	send_all();
	for (int i = 0; i < PEERS; i++) {
		assert_int_equal(recv(own[i].polled.fd, &byte, 1, MSG_DONTWAIT), 1);
		assert_int_equal(recv(own[i].polled.fd, &byte, 1, MSG_DONTWAIT), -1);
	}
	close_all();
}

static void part_ipv4(const char *at, const char *to)
{
	struct sockaddr_storage address = { .ss_family = AF_INET };
	assert_int_equal(inet_pton(AF_INET, at, &((struct sockaddr_in *)(void *)&address)->sin_addr), 1);
	part_with(&address, sizeof(struct sockaddr_in), to);
}

static void part_ipv6(const char *at, const char *to)
{
	struct sockaddr_storage address = { .ss_family = AF_INET6 };
	assert_int_equal(inet_pton(AF_INET6, at, &((struct sockaddr_in6 *)(void *)&address)->sin6_addr), 1);
	part_with(&address, sizeof(struct sockaddr_in6), to);
}

static void takes_nothing_of_others_at_an_address(void **state)
{
	(void)state;
	part_ipv4("127.0.0.1", "127.0.0.1");
}

static void takes_nothing_of_others_at_any_address(void **state)
{
	(void)state;
	part_ipv4("0.0.0.0", "127.0.0.1");
}

static void takes_nothing_of_others_over_ipv6(void **state)
{
	(void)state;
	part_ipv6("::1", "::1");
	part_ipv6("::", "::1");
	part_ipv6("::", "127.0.0.1");
}

/* The system would choose 127.0.0.1 to reach the peer. What comes just then may be lost; what comes later is not. */
static void has_the_address_that_its_peer_knows(void **state)
{
	struct sockaddr_storage address = { .ss_family = AF_INET };
	char byte;
	(void)state;
	open_all(&address, sizeof(struct sockaddr_in));
	connect_peers("127.0.0.2", ((struct sockaddr_in *)(void *)&address)->sin_port);
	send_all();
	part_turn();
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(flow_part(&flows[i], &own[i]), 0);
	send_all();
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(recv(own[i].polled.fd, &byte, 1, MSG_DONTWAIT), 1);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_nothing_of_others_at_an_address),
		cmocka_unit_test(takes_nothing_of_others_at_any_address),
		cmocka_unit_test(takes_nothing_of_others_over_ipv6),
		cmocka_unit_test(has_the_address_that_its_peer_knows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

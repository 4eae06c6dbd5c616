/* Connections to what listens, or does not, on the loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dns.h"
#include "net/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	NEVER_MS = 1 << 30,
	AT_ONCE_MS = 1,
	TCP_QUEUED = 16,
	SOCKETS_MAX = 32,
};

static struct fake_dns dns;
static struct dialer dialer;
static struct resolver_settings settings;
static bool has_server;

/* What the test has open. */
static int sockets[SOCKETS_MAX];
static unsigned socket_count;

/* What one has come to. */
struct outcome {
	unsigned times;
	int fd, err;
	char why[700], peer[ADDRESS_TEXT_BYTES];
};

static struct outcome outcome;

static int kept(int fd)
{
	assert_true(fd >= 0 && socket_count < SOCKETS_MAX);
	sockets[socket_count++] = fd;
	return fd;
}

static void on_outcome(void *data, int fd, int err, const char *why)
{
	struct outcome *to = data;
	union address peer;
	socklen_t bytes = sizeof peer;
	to->times++;
	to->fd = fd;
	to->err = err;
	assert_true(err ? fd == -1 && why : fd >= 0 && !why);
	snprintf(to->why, sizeof to->why, "%s", why ? why : "");
	if (fd < 0)
		return;
	kept(fd);
	if (!getpeername(fd, &peer.any, &bytes))
		address_text(&peer.any, to->peer, sizeof to->peer);
}

static void set_hosts(const char *text)
{
	settings.hosts_path = write_file("hosts", text);
}

static int begin_test(void **state)
{
	begin_polling(state);
	settings = (struct resolver_settings){ .dns.servers = "127.0.0.1:1" }; /* nobody there */
	set_hosts("");
	dialer_init(&dialer, &poller, &settings);
	dialer.attempt_ms = dialer.resolution_ms = NEVER_MS;
	memset(&outcome, 0, sizeof outcome);
	socket_count = 0;
	has_server = false;
	return 0;
}

static int end_test(void **state)
{
	dialer_deinit(&dialer);
	if (has_server)
		fake_dns_close(&dns);
	while (socket_count)
		close(sockets[--socket_count]);
	return end_polling(state);
}

#define WITH_DIALER(TEST) cmocka_unit_test_setup_teardown(TEST, begin_test, end_test)

/* A name server that the dialer asks. */
static void serve(struct fake_record *records)
{
	fake_dns_open(&dns, "127.0.0.1", 0, records);
	settings.dns.servers = fake_dns_server(&dns);
	has_server = true;
}

/* ---- peers ---- */

static int bound(const char *host, uint16_t port)
{
	union address address;
	int one = 1;
	assert_true(address_read(host, &address));
	address_set_port(&address, port);
	int fd = kept(socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, &address.any, address_bytes(&address)))
		skip(); /* a machine without IPv6, or somebody has this port at another address */
	return fd;
}

static int listening(const char *host, uint16_t port)
{
	int fd = bound(host, port);
	assert_int_equal(listen(fd, TCP_QUEUED), 0);
	return fd;
}

static uint16_t port_of(int fd)
{
	union address address;
	socklen_t bytes = sizeof address;
	assert_int_equal(getsockname(fd, &address.any, &bytes), 0);
	return ntohs(address.any.sa_family == AF_INET ? address.in.sin_port : address.in6.sin6_port);
}

/* Takes a client whose connection is complete, or returns -1. */
static int accepted(int fd)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	return client < 0 ? -1 : kept(client);
}

/* Its queue is full: the kernel drops what else would connect, until somebody accepts. */
static int deaf(const char *host, uint16_t port)
{
	int fd = bound(host, port), client;
	union address address;
	socklen_t bytes = sizeof address;
	struct pollfd poll_fd = { .events = POLLOUT };
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, &address.any, &bytes), 0);
	do {
		client = kept(socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
		connect(client, &address.any, bytes);
		poll_fd.fd = client;
	} while (poll(&poll_fd, 1, 0) == 1); /* on the loopback it connects within connect(), or not at all */
	return fd;
}

static struct dial *begin(const char *host, uint16_t port, struct outcome *to)
{
	const struct dial_target target = { .host = host, .port = port };
	struct dial *dial = dial_begin(&dialer, &target, on_outcome, to);
	assert_non_null(dial);
	assert_int_equal(to->times, 0);
	return dial;
}

static void dial(const struct dial_target *target)
{
	memset(&outcome, 0, sizeof outcome);
	assert_non_null(dial_begin(&dialer, target, on_outcome, &outcome));
	assert_int_equal(outcome.times, 0);
	UNTIL(outcome.times);
	assert_int_equal(dialer.count, 0);
}

static void dial_host(const char *host, uint16_t port)
{
	dial(&(struct dial_target){ .host = host, .port = port });
}

static void expect_peer(const char *host, uint16_t port)
{
	char text[ADDRESS_TEXT_BYTES];
	snprintf(text, sizeof text, "%s:%u", host, port);
	assert_int_equal(outcome.err, 0);
	assert_string_equal(outcome.peer, text);
}

/* "$" in `why` is the port. */
static void expect_failure(int err, uint16_t port, const char *why)
{
	char text[700];
	size_t n = 0;
	for (; *why; why++)
		n += (size_t)(*why == '$' ? sprintf(text + n, "%u", port) : sprintf(text + n, "%c", *why));
	assert_int_equal(outcome.err, err);
	assert_string_equal(outcome.why, text);
}

static unsigned known;

static void on_known(void *data, int err, const union address *list, unsigned count)
{
	(void)data, (void)err, (void)list, (void)count;
	known++;
}

/* Turns the loop until those dials know it that wait for it: it is asked for once, and they are told first. */
static void until_known(const char *name, int family)
{
	known = 0;
	assert_non_null(resolver_ask(dialer.resolver, name, family, on_known, NULL));
	UNTIL(known);
}

/* ---- one address ---- */

struct watched {
	struct polled polled;
	bool is_ready;
};

static void on_watched_ready(struct polled *polled, uint32_t events)
{
	if (events & EPOLLIN)
		((struct watched *)(void *)polled)->is_ready = true;
}

static void on_watched_closed(struct polled *polled)
{
	((struct watched *)(void *)polled)->is_ready = false;
}

/* It is as its owner wants it, and can be watched by the same poller. */
static void expect_usable(int listener)
{
	static const struct polled_ops OPS = { .ready = on_watched_ready, .closed = on_watched_closed };
	struct watched watched = { 0 };
	int client = accepted(listener);
	char got[2];
	assert_true(client >= 0);
	assert_true(fcntl(outcome.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(outcome.fd, F_GETFD) & FD_CLOEXEC);
	polled_init(&watched.polled, &poller, outcome.fd, &OPS);
	assert_int_equal(poller_watch(&watched.polled, EPOLLIN), 0);
	assert_int_equal(send(client, "hi", 2, 0), 2);
	UNTIL(watched.is_ready);
	assert_int_equal(recv(outcome.fd, got, sizeof got, 0), 2);
	assert_int_equal(poller_release(&watched.polled), outcome.fd);
	poller_forget(&poller);
	assert_false(watched.is_ready);
}

static void connects_to_ipv4(void **state)
{
	int listener = listening("127.0.0.1", 0), nodelay = 0;
	socklen_t bytes = sizeof nodelay;
	(void)state;
	dial_host("127.0.0.1", port_of(listener));
	expect_peer("127.0.0.1", port_of(listener));
	assert_int_equal(getsockopt(outcome.fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &bytes), 0);
	assert_true(nodelay);
	expect_usable(listener);
	dial_host("::ffff:127.0.0.1", port_of(listener));
	expect_peer("127.0.0.1", port_of(listener));
}

static void connects_to_ipv6(void **state)
{
	int listener = listening("::1", 0);
	(void)state;
	dial_host("::1", port_of(listener));
	expect_peer("[::1]", port_of(listener));
	expect_usable(listener);
}

static void connects_to_localhost(void **state)
{
	int listener = listening("127.0.0.1", 0);
	(void)state;
	bound("::1", port_of(listener)); /* nobody listens there */
	dial_host("localhost", port_of(listener));
	expect_peer("127.0.0.1", port_of(listener));
}

static int listening_local(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (*path != '@'));
	int fd = kept(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	strcpy(address.sun_path, path);
	if (*path == '@')
		*address.sun_path = '\0';
	assert_int_equal(bind(fd, (struct sockaddr *)&address, bytes), 0);
	assert_int_equal(listen(fd, 0), 0);
	return fd;
}

static void connects_to_a_unix_socket(void **state)
{
	const char *path = write_file("socket", "");
	(void)state;
	unlink(path);
	int listener = listening_local(path);
	dial(&(struct dial_target){ .is_local = true, .path = path });
	assert_int_equal(outcome.err, 0);
	assert_null(dialer.resolver); /* who resolves nothing pays nothing */
	expect_usable(listener);
}

static void connects_to_an_abstract_socket(void **state)
{
	char name[64];
	(void)state;
	snprintf(name, sizeof name, "@perilune-dial-%d", getpid());
	int listener = listening_local(name);
	dial(&(struct dial_target){ .is_local = true, .path = name });
	assert_int_equal(outcome.err, 0);
	expect_usable(listener);
}

static void says_what_is_wrong_with_a_path(void **state)
{
	char path[200], why[300];
	(void)state;
	dial(&(struct dial_target){ .is_local = true, .path = "/nowhere/at all\n" });
	expect_failure(UV_ENOENT, 0, "/nowhere/at all\\n: no such file or directory");
	memset(path, 'x', sizeof path);
	path[sizeof path - 1] = '\0';
	snprintf(why, sizeof why, "%s: name too long", path);
	dial(&(struct dial_target){ .is_local = true, .path = path });
	expect_failure(UV_ENAMETOOLONG, 0, why);
	dial(&(struct dial_target){ .is_local = true, .path = "" });
	assert_int_equal(outcome.err, UV_EINVAL);
}

static void waits_for_room_in_the_backlog_of_a_unix_socket(void **state)
{
	const char *path = write_file("socket", "");
	const struct dial_target target = { .is_local = true, .path = path };
	struct outcome cancelled = { 0 };
	(void)state;
	unlink(path);
	int listener = listening_local(path);
	dial(&target); /* takes the only place */
	memset(&outcome, 0, sizeof outcome);
	assert_non_null(dial_begin(&dialer, &target, on_outcome, &outcome));
	struct dial *other = dial_begin(&dialer, &target, on_outcome, &cancelled);
	for (int i = 0; i < 3; i++)
		turn();
	assert_int_equal(outcome.times + cancelled.times, 0);
	dial_cancel(other);
	assert_true(accepted(listener) >= 0);
	UNTIL(outcome.times);
	assert_int_equal(outcome.err, 0);
	assert_int_equal(cancelled.times, 0);
}

static void is_refused(void **state)
{
	uint16_t port = port_of(bound("127.0.0.1", 0));
	(void)state;
	dial_host("127.0.0.1", port);
	expect_failure(UV_ECONNREFUSED, port, "127.0.0.1:$: connection refused");
	set_hosts("127.0.0.1 gone.test");
	dial_host("gone.test", port);
	expect_failure(UV_ECONNREFUSED, port, "gone.test:$: connection refused (127.0.0.1:$)");
}

static void is_refused_by_ipv6(void **state)
{
	uint16_t port = port_of(bound("::1", 0));
	(void)state;
	dial_host("::1", port);
	expect_failure(UV_ECONNREFUSED, port, "[::1]:$: connection refused");
}

static void a_name_without_addresses_says_so(void **state)
{
	struct fake_record records[] = {
		{ "empty.test", FAKE_A, 60, .addresses = NULL },
		{ "half.test", FAKE_A, 60, .rcode = 2 },
		{ "half.test", FAKE_AAAA, 60, .addresses = NULL },
		{ 0 },
	};
	(void)state;
	serve(records);
	dial_host("unknown.test", 80);
	expect_failure(UV_EAI_NONAME, 80, "unknown.test:$: no such name");
	dial_host("empty.test", 80);
	expect_failure(UV_EAI_NODATA, 80, "empty.test:$: the name has no address");
	dial_host("half.test", 80);
	expect_failure(UV_EAI_AGAIN, 80, "half.test:$: no name server has an answer");
	dial_host("a b\x1b", 80);
	expect_failure(UV_EINVAL, 80, "a b\\x1b:$: not a valid name or address");
}

static void a_family_that_could_not_be_asked_for_is_told(void **state)
{
	struct fake_record records[] = {
		{ "half.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "half.test", FAKE_AAAA, 60, .rcode = 2 },
		{ 0 },
	};
	uint16_t port = port_of(bound("127.0.0.1", 0));
	(void)state;
	serve(records);
	dial_host("half.test", port);
	expect_failure(UV_ECONNREFUSED, port,
		       "half.test:$: connection refused (127.0.0.1:$), no name server has an answer");
}

/* A port that is asked for as its own is connected to itself, by a simultaneous open. */
static void does_not_connect_to_itself(void **state)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	union address address;
	struct sockaddr_storage from = { 0 };
	(void)state;
	assert_true(address_read("127.0.0.1", &address));
	assert_int_equal(bind(fd, &address.any, address_bytes(&address)), 0);
	uint16_t port = port_of(fd);
	close(fd);
	address_set_port(&address, port);
	memcpy(&from, &address, sizeof address.in);
	dial(&(struct dial_target){ .host = "127.0.0.1", .port = port, .from = &from });
	expect_failure(UV_ECONNREFUSED, port, "127.0.0.1:$: connection refused");
}

/* ---- the local address ---- */

static void read_from(const char *host, uint16_t port, struct sockaddr_storage *from)
{
	union address address;
	assert_true(address_read(host, &address));
	address_set_port(&address, port);
	memset(from, 0, sizeof *from);
	memcpy(from, &address, sizeof address);
}

static void expect_from(int listener, const char *host, uint16_t port)
{
	char text[ADDRESS_TEXT_BYTES], expected[ADDRESS_TEXT_BYTES];
	union address peer;
	socklen_t bytes = sizeof peer;
	int client = accepted(listener);
	assert_int_equal(getpeername(client, &peer.any, &bytes), 0);
	snprintf(expected, sizeof expected, "%s:%u", host, port ? port : ntohs(peer.in.sin_port));
	assert_string_equal(address_text(&peer.any, text, sizeof text), expected);
}

static void connects_from_a_local_address(void **state)
{
	int listener = listening("127.0.0.1", 0);
	struct sockaddr_storage from;
	struct dial_target target = { .host = "127.0.0.1", .port = port_of(listener), .from = &from };
	(void)state;
	read_from("127.0.0.5", 0, &from);
	dial(&target);
	expect_from(listener, "127.0.0.5", 0);
	read_from("127.0.0.6", port_of(listener), &from); /* known to be free: bound at another address */
	dial(&target);
	expect_from(listener, "127.0.0.6", port_of(listener));
	read_from("192.0.2.1", 0, &from); /* of nobody */
	dial(&target);
	expect_failure(UV_EADDRNOTAVAIL, target.port, "127.0.0.1:$: address not available");
}

static void leaves_out_what_the_local_address_cannot_reach(void **state)
{
	int listener = listening("127.0.0.1", 0);
	struct sockaddr_storage from;
	struct dial_target target = { .host = "both.test", .port = port_of(listener), .from = &from };
	(void)state;
	listening("::1", target.port);
	set_hosts("::1 both.test\n127.0.0.1 both.test\n");
	read_from("127.0.0.5", 0, &from);
	dial(&target);
	expect_peer("127.0.0.1", target.port);
	target.host = "::1";
	dial(&target);
	expect_failure(UV_EAI_NODATA, target.port, "[::1]:$: no address of the local address's family");
}

/* ---- several addresses ---- */

static void stop_listening(int fd)
{
	assert_int_equal(shutdown(fd, SHUT_RD), 0); /* it keeps a port that was asked for */
}

static void the_next_is_tried_at_once_where_one_fails(void **state)
{
	uint16_t port = port_of(bound("127.0.0.2", 0));
	(void)state;
	bound("127.0.0.3", port);
	int listener = listening("127.0.0.4", port);
	set_hosts("127.0.0.2 many.test\n127.0.0.3 many.test\n127.0.0.4 many.test\n127.0.0.4 many.test\n");
	dial_host("many.test", port);
	expect_peer("127.0.0.4", port);
	stop_listening(listener);
	dial_host("many.test", port);
	expect_failure(UV_ECONNREFUSED, port,
		       "many.test:$: connection refused (127.0.0.2:$), connection refused (127.0.0.3:$), "
		       "connection refused (127.0.0.4:$)");
}

static void another_is_tried_while_one_hangs(void **state)
{
	int hanging = deaf("127.0.0.2", 0);
	uint16_t port = port_of(hanging);
	int listener = listening("127.0.0.4", port);
	(void)state;
	dialer.attempt_ms = AT_ONCE_MS;
	deaf("127.0.0.3", port);
	set_hosts("127.0.0.2 many.test\n127.0.0.3 many.test\n127.0.0.4 many.test\n");
	dial_host("many.test", port);
	expect_peer("127.0.0.4", port);
	assert_true(accepted(listener) >= 0);
	assert_int_equal(accepted(listener), -1);
}

static void one_that_hangs_is_waited_for_if_the_others_fail(void **state)
{
	int hanging = deaf("127.0.0.2", 0);
	uint16_t port = port_of(hanging);
	(void)state;
	dialer.attempt_ms = AT_ONCE_MS;
	bound("127.0.0.3", port);
	set_hosts("127.0.0.2 many.test\n127.0.0.3 many.test\n");
	begin("many.test", port, &outcome);
	while (accepted(hanging) >= 0)
		;
	UNTIL(outcome.times); /* the kernel tries again after a second */
	expect_peer("127.0.0.2", port);
}

static void ipv6_is_tried_first_and_then_they_take_turns(void **state)
{
	int listener = listening("127.0.0.1", 0);
	uint16_t port = port_of(listener);
	(void)state;
	int ipv6 = listening("::1", port);
	bound("127.0.0.2", port);
	set_hosts("127.0.0.1 both.test\n::1 both.test\n"
		  "127.0.0.2 turns.test\n127.0.0.1 turns.test\n::1 turns.test\n");
	dial_host("both.test", port);
	expect_peer("[::1]", port);
	assert_true(accepted(ipv6) >= 0);
	assert_int_equal(accepted(listener), -1);
	stop_listening(ipv6);
	dial_host("turns.test", port);
	expect_peer("127.0.0.1", port);
}

/* ---- late answers ---- */

static void ipv6_that_is_just_behind_comes_first(void **state)
{
	struct fake_record records[] = {
		{ "both.test", FAKE_A, 60, .addresses = "127.0.0.1", .manner = FAKE_HOLDS },
		{ "both.test", FAKE_AAAA, 60, .addresses = "::1", .manner = FAKE_HOLDS },
		{ 0 },
	};
	int listener = listening("127.0.0.1", 0);
	uint16_t port = port_of(listener);
	(void)state;
	listening("::1", port);
	serve(records);
	begin("both.test", port, &outcome);
	UNTIL(dns.held_count == 2);
	fake_dns_release(&dns, FAKE_A);
	until_known("both.test", AF_INET);
	fake_dns_release(&dns, FAKE_AAAA);
	UNTIL(outcome.times);
	expect_peer("[::1]", port);
	assert_int_equal(accepted(listener), -1);
}

static void ipv4_does_not_wait_where_there_is_no_ipv6(void **state)
{
	struct fake_record records[] = {
		{ "half.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "half.test", FAKE_AAAA, 60, .manner = FAKE_HOLDS },
		{ 0 },
	};
	uint16_t port = port_of(listening("127.0.0.1", 0));
	(void)state;
	serve(records);
	begin("half.test", port, &outcome);
	until_known("half.test", AF_INET);
	UNTIL(dns.held_count);
	fake_dns_release(&dns, FAKE_AAAA);
	UNTIL(outcome.times);
	expect_peer("127.0.0.1", port);
}

static void ipv4_goes_ahead_where_ipv6_stays_away(void **state)
{
	struct fake_record records[] = {
		{ "half.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "half.test", FAKE_AAAA, 60, .manner = FAKE_SILENT },
		{ 0 },
	};
	uint16_t port = port_of(listening("127.0.0.1", 0));
	(void)state;
	serve(records);
	dialer.resolution_ms = AT_ONCE_MS;
	dial_host("half.test", port);
	expect_peer("127.0.0.1", port);
}

static void what_comes_later_joins_the_race(void **state)
{
	struct fake_record records[] = {
		{ "late.test", FAKE_A, 60, .addresses = "127.0.0.2" },
		{ "late.test", FAKE_AAAA, 60, .addresses = "::1", .manner = FAKE_HOLDS },
		{ 0 },
	};
	uint16_t port = port_of(deaf("127.0.0.2", 0));
	(void)state;
	listening("::1", port);
	serve(records);
	dialer.resolution_ms = dialer.attempt_ms = AT_ONCE_MS;
	int before = count_descriptors();
	begin("late.test", port, &outcome);
	UNTIL(dns.held_count && count_descriptors() >= before + 2); /* one asks, one connects */
	fake_dns_release(&dns, FAKE_AAAA);
	UNTIL(outcome.times);
	expect_peer("[::1]", port);
}

static void what_failed_before_is_told_after_a_late_answer(void **state)
{
	struct fake_record records[] = {
		{ "late.test", FAKE_A, 60, .addresses = "127.0.0.2" },
		{ "late.test", FAKE_AAAA, 60, .manner = FAKE_HOLDS },
		{ 0 },
	};
	uint16_t port = port_of(bound("127.0.0.2", 0));
	(void)state;
	serve(records);
	dialer.resolution_ms = AT_ONCE_MS;
	struct outcome other = { 0 };
	begin("late.test", port, &outcome);
	until_known("late.test", AF_INET);
	begin("127.0.0.2", port, &other);
	UNTIL(other.times && dns.held_count);
	assert_int_equal(outcome.times, 0);
	fake_dns_release(&dns, FAKE_AAAA);
	UNTIL(outcome.times);
	expect_failure(UV_ECONNREFUSED, port, "late.test:$: connection refused (127.0.0.2:$)");
}

/* ---- the end ---- */

static void one_that_is_cancelled_tells_nobody(void **state)
{
	struct fake_record records[] = {
		{ "held.test", FAKE_A, 60, .manner = FAKE_HOLDS },
		{ "held.test", FAKE_AAAA, 60, .manner = FAKE_HOLDS },
		{ "half.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ "half.test", FAKE_AAAA, 60, .manner = FAKE_HOLDS },
		{ 0 },
	};
	uint16_t port = port_of(listening("127.0.0.1", 0)), deaf_port = port_of(deaf("127.0.0.2", 0));
	struct outcome none = { 0 };
	struct dial *dials[3];
	(void)state;
	serve(records);
	dial_cancel(begin("127.0.0.1", port, &none)); /* at once */
	dials[0] = begin("held.test", port, &none);
	dials[1] = begin("half.test", port, &none);
	dials[2] = begin("127.0.0.2", deaf_port, &none);
	begin("127.0.0.1", port, &outcome);
	until_known("half.test", AF_INET);
	UNTIL(dns.held_count == 3);
	for (int i = 0; i < 3; i++)
		dial_cancel(dials[i]); /* resolving; waiting for IPv6; connecting */
	UNTIL(outcome.times);
	expect_peer("127.0.0.1", port);
	dial_host("127.0.0.1", port);
	assert_int_equal(none.times, 0);
}

static void says_that_there_are_no_descriptors(void **state)
{
	uint16_t port = port_of(listening("127.0.0.1", 0));
	struct rlimit before, now;
	(void)state;
	dial_host("127.0.0.1", port); /* the resolver is there */
	int next = dup(0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	now = before;
	now.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	dial_host("127.0.0.1", port);
	expect_failure(UV_EMFILE, port, "127.0.0.1:$: too many open files");
	dial_host("name.test", port);
	expect_failure(UV_EMFILE, port, "name.test:$: too many open files");
	dial(&(struct dial_target){ .is_local = true, .path = "/socket" });
	expect_failure(UV_EMFILE, port, "/socket: too many open files");
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* ---- only resolving ---- */

static char resolved[512];
static unsigned resolved_times;

static void on_resolved(void *data, int err, const union address *list, unsigned count)
{
	char text[ADDRESS_TEXT_BYTES];
	(void)data;
	resolved_times++;
	snprintf(resolved, sizeof resolved, "%d", err);
	for (unsigned i = 0; i < count; i++)
		snprintf(resolved + strlen(resolved), sizeof resolved - strlen(resolved), " %s",
			 address_text(&list[i].any, text, sizeof text));
}

static void expect_resolved(const char *name, int family, const char *expected)
{
	resolved_times = 0;
	assert_non_null(dialer_resolve(&dialer, name, family, on_resolved, NULL));
	assert_int_equal(resolved_times, 0);
	UNTIL(resolved_times);
	assert_string_equal(resolved, expected);
}

static void resolves_in_the_order_of_connecting(void **state)
{
	(void)state;
	set_hosts("127.0.0.1 a.test\n127.0.0.2 a.test\n127.0.0.1 a.test\n::1 a.test\n"
		  "fe80::1 b.test\n127.0.0.1 b.test\n"); /* an address of no link: there is no way to it */
	close(bound("::1", 0));
	socket_count--;
	expect_resolved("a.test", AF_UNSPEC, "0 [::1]:0 127.0.0.1:0 127.0.0.2:0");
	expect_resolved("a.test", AF_INET, "0 127.0.0.1:0 127.0.0.2:0");
	expect_resolved("a.test", AF_INET6, "0 [::1]:0");
	expect_resolved("b.test", AF_UNSPEC, "0 127.0.0.1:0 [fe80::1]:0");
	expect_resolved("127.0.0.9", AF_UNSPEC, "0 127.0.0.9:0");
}

static void a_query_that_is_cancelled_tells_nobody(void **state)
{
	struct fake_record records[] = { { "a.test", FAKE_A, 60, .manner = FAKE_HOLDS }, { 0 } };
	char nothing[16];
	(void)state;
	serve(records);
	resolved_times = 0;
	struct dialer_query *query = dialer_resolve(&dialer, "a.test", AF_UNSPEC, on_resolved, NULL);
	UNTIL(dns.held_count);
	dialer_resolve_cancel(query);
	dialer_resolve_cancel(dialer_resolve(&dialer, "a.test", AF_INET6, on_resolved, NULL));
	assert_int_equal(resolved_times, 0);
	snprintf(nothing, sizeof nothing, "%d", UV_EAI_NONAME);
	expect_resolved("b.test", AF_UNSPEC, nothing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DIALER(connects_to_ipv4),
		WITH_DIALER(connects_to_ipv6),
		WITH_DIALER(connects_to_localhost),
		WITH_DIALER(connects_to_a_unix_socket),
		WITH_DIALER(connects_to_an_abstract_socket),
		WITH_DIALER(says_what_is_wrong_with_a_path),
		WITH_DIALER(waits_for_room_in_the_backlog_of_a_unix_socket),
		WITH_DIALER(is_refused),
		WITH_DIALER(is_refused_by_ipv6),
		WITH_DIALER(a_name_without_addresses_says_so),
		WITH_DIALER(a_family_that_could_not_be_asked_for_is_told),
		WITH_DIALER(does_not_connect_to_itself),
		WITH_DIALER(connects_from_a_local_address),
		WITH_DIALER(leaves_out_what_the_local_address_cannot_reach),
		WITH_DIALER(the_next_is_tried_at_once_where_one_fails),
		WITH_DIALER(another_is_tried_while_one_hangs),
		WITH_DIALER(one_that_hangs_is_waited_for_if_the_others_fail),
		WITH_DIALER(ipv6_is_tried_first_and_then_they_take_turns),
		WITH_DIALER(ipv6_that_is_just_behind_comes_first),
		WITH_DIALER(ipv4_does_not_wait_where_there_is_no_ipv6),
		WITH_DIALER(ipv4_goes_ahead_where_ipv6_stays_away),
		WITH_DIALER(what_comes_later_joins_the_race),
		WITH_DIALER(what_failed_before_is_told_after_a_late_answer),
		WITH_DIALER(one_that_is_cancelled_tells_nobody),
		WITH_DIALER(says_that_there_are_no_descriptors),
		WITH_DIALER(resolves_in_the_order_of_connecting),
		WITH_DIALER(a_query_that_is_cancelled_tells_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Each allocation of c-ares fails once, and each call of the system, while a name is looked up and connected to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dns.h"
#include "net/dial.h"

#include <ares.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	TIMEOUT_MS = 20, /* of a question that was not sent */
	TRIES = 2,
	CALLS_MAX = 2000,
};

/* ---- what fails ---- */

enum kind { MEMORY, SOCKET, CONNECT, SENDMSG, RECVFROM, GETSOCKOPT };

static enum kind failing;
static unsigned long fails_at; /* which call of that kind; 0: none */
static unsigned long calls;
static unsigned long live; /* blocks of c-ares' */

static bool is_due(enum kind kind)
{
	return kind == failing && ++calls == fails_at;
}

static bool fails(enum kind kind, int error)
{
	bool due = is_due(kind);
	if (due)
		errno = error;
	return due;
}

static void *ares_own_malloc(size_t bytes)
{
	void *block = is_due(MEMORY) ? NULL : malloc(bytes);
	live += block != NULL;
	return block;
}

static void *ares_own_realloc(void *block, size_t bytes)
{
	void *grown = is_due(MEMORY) ? NULL : realloc(block, bytes);
	live += grown && !block;
	return grown;
}

static void ares_own_free(void *block)
{
	live -= block != NULL;
	free(block);
}

/* These take the place of the C library's, for all of this program. */

int socket(int family, int type, int protocol)
{
	return fails(SOCKET, EMFILE) ? -1 : (int)syscall(SYS_socket, family, type, protocol);
}

int connect(int fd, const struct sockaddr *to, socklen_t bytes)
{
	return fails(CONNECT, ENETUNREACH) ? -1 : (int)syscall(SYS_connect, fd, to, bytes);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return fails(SENDMSG, EPERM) ? -1 : syscall(SYS_sendmsg, fd, message, flags);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *bytes)
{
	return fails(GETSOCKOPT, ENOBUFS) ? -1
					  : (int)syscall(SYS_getsockopt, fd, level, option, value, bytes);
}

static struct fake_dns dns;

/* The server's are its own. */
ssize_t recvfrom(int fd, void *to, size_t n, int flags, struct sockaddr *from, socklen_t *bytes)
{
	bool is_servers = dns.udp && dns.udp->fd == fd;
	return !is_servers && fails(RECVFROM, ECONNREFUSED)
		   ? -1
		   : syscall(SYS_recvfrom, fd, to, n, flags, from, bytes);
}

/* ---- a dialer and its server ---- */

static struct dialer dialer;
static struct resolver_settings settings;

struct outcome {
	unsigned times;
	int fd, err;
};

static void on_outcome(void *data, int fd, int err, const char *why)
{
	struct outcome *to = data;
	to->times++;
	to->fd = fd;
	to->err = err;
	assert_true(err ? fd == -1 && why : fd >= 0 && !why);
}

/* On the loopback, at *port. */
static int open_listener(uint16_t *port)
{
	union address address;
	socklen_t bytes = sizeof address.in;
	assert_true(address_read("127.0.0.1", &address));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, &address.any, bytes), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, &address.any, &bytes), 0);
	*port = ntohs(address.in.sin_port);
	return fd;
}

static int connect_to(const char *host, uint16_t port)
{
	struct outcome outcome = { 0 };
	const struct dial_target target = { .host = host, .port = port };
	assert_non_null(dial_begin(&dialer, &target, on_outcome, &outcome));
	UNTIL(outcome.times);
	assert_int_equal(outcome.times, 1);
	assert_int_equal(dialer.count, 0);
	if (!outcome.err)
		close(outcome.fd);
	return outcome.err;
}

/* True: there is such a call. What has failed is not asked for again within a second: the second name is another. */
static bool fail_one(enum kind kind, unsigned long n, struct fake_record *records)
{
	uint16_t port;
	begin_polling(NULL);
	unsigned long live_before = live;
	settings = (struct resolver_settings){ .hosts_path = write_file("hosts", "") };
	settings.dns.timeout_ms = TIMEOUT_MS;
	settings.dns.tries = TRIES;
	int listener = open_listener(&port);
	fake_dns_open(&dns, "127.0.0.1", 0, records);
	settings.dns.servers = fake_dns_server(&dns);
	dialer_init(&dialer, &poller, &settings);
	dialer.attempt_ms = dialer.resolution_ms = 1;
	calls = 0;
	failing = kind;
	fails_at = n;
	connect_to("a.test", port);
	bool was_made = calls >= n;
	fails_at = 0;
	assert_int_equal(connect_to("z.test", port), 0);
	dialer_deinit(&dialer);
	fake_dns_close(&dns);
	close(listener);
	end_polling(NULL);
	assert_int_equal(live, live_before);
	return was_made;
}

static void fail_each(enum kind kind, struct fake_record *records, unsigned long least)
{
	unsigned long n = 1;
	while (fail_one(kind, n, records))
		assert_true(++n < CALLS_MAX);
	assert_true(n > least);
}

/* How many calls there are at least. */
static void fail_all(struct fake_record *records)
{
	fail_each(MEMORY, records, 20);
	fail_each(SOCKET, records, 2);
	fail_each(CONNECT, records, 2);
	fail_each(SENDMSG, records, 1);
	fail_each(RECVFROM, records, 1);
	fail_each(GETSOCKOPT, records, 1);
}

static void a_name_is_looked_up(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.1", .aliases = "b.test c.test" },
		{ "a.test", FAKE_AAAA, 60, .addresses = "::1" },
		{ "z.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ 0 },
	};
	(void)state;
	fail_all(records);
}

static void a_name_is_looked_up_over_tcp(void **state)
{
	struct fake_record records[] = {
		{ "a.test", FAKE_A, 60, .addresses = "127.0.0.1", .manner = FAKE_SHORTENS },
		{ "z.test", FAKE_A, 60, .addresses = "127.0.0.1" },
		{ 0 },
	};
	(void)state;
	fail_all(records);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_looked_up),
		cmocka_unit_test(a_name_is_looked_up_over_tcp),
	};
	if (ares_library_init_mem(ARES_LIB_INIT_ALL, ares_own_malloc, ares_own_free, ares_own_realloc))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

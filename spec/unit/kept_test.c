/* What scripts keep, on its way to another process: it comes back as it was, and nothing else is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "restart/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct snapshot snapshot_of(const char *bytes, size_t len)
{
	struct snapshot snapshot = { malloc(len), len };
	assert_non_null(snapshot.bytes);
	memcpy(snapshot.bytes, bytes, len);
	return snapshot;
}

static int write_three(void)
{
	struct snapshot three[] = { snapshot_of("a\0b", 3), { 0 }, snapshot_of("third", 5) };
	const struct kept kept = { three, 3 };
	int fd = kept_write(&kept);
	for (unsigned i = 0; i < kept.count; i++)
		snapshot_free(&three[i]);
	assert_true(fd >= 0);
	return fd;
}

static void expect_taken(struct kept *kept, unsigned worker, const char *bytes, size_t len)
{
	struct kept_source source = kept_source(kept, worker);
	struct snapshot snapshot = { 0 };
	assert_int_equal(source.source.take(&source.source, &snapshot, NULL, 0), 0);
	assert_int_equal(snapshot.len, len);
	assert_true(len ? !memcmp(snapshot.bytes, bytes, len) : !snapshot.bytes);
	snapshot_free(&snapshot);
}

static void comes_back_as_it_was(void **state)
{
	struct kept kept;
	char why[256];
	int fd = write_three();
	(void)state;
	assert_true(kept_read(fd, &kept, why, sizeof why));
	close(fd);
	assert_int_equal(kept.count, 3);
	expect_taken(&kept, 2, "third", 5);
	expect_taken(&kept, 1, NULL, 0);
	expect_taken(&kept, 3, NULL, 0); /* there is no such worker */
	expect_taken(&kept, 2, NULL, 0); /* once */
	kept_free(&kept);                /* and what nobody has taken */
}

static void nothing_comes_back_as_nothing(void **state)
{
	const struct kept none = { NULL, 0 };
	struct kept kept;
	char why[256];
	(void)state;
	int fd = kept_write(&none);
	assert_true(fd >= 0);
	assert_true(kept_read(fd, &kept, why, sizeof why));
	close(fd);
	assert_int_equal(kept.count, 0);
	expect_taken(&kept, 0, NULL, 0);
	kept_free(&kept);
}

static void cannot_be_changed_any_more(void **state)
{
	int fd = write_three();
	(void)state;
	assert_int_equal(write(fd, "x", 1), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

/* Of every length, and with each of its bytes changed: it is taken or refused, and that is all. */
static void is_refused_where_it_is_damaged(void **state)
{
	char bytes[256], why[256];
	struct kept kept;
	int fd = write_three();
	ssize_t len = pread(fd, bytes, sizeof bytes, 0);
	(void)state;
	close(fd);
	assert_true(len > 0);
	for (ssize_t i = 0; i < 2 * len; i++) {
		char copy[256];
		memcpy(copy, bytes, sizeof copy);
		size_t n = i < len ? (size_t)i : (size_t)len;
		if (i >= len)
			copy[i - len] = (char)(copy[i - len] ^ 0x81);
		fd = memfd_create("kept", 0);
		assert_int_equal(write(fd, copy, n), n);
		bool is_read = kept_read(fd, &kept, why, sizeof why);
		assert_true(!is_read || i >= len);
		if (is_read)
			kept_free(&kept);
		else
			assert_non_null(strstr(why, "what the old process keeps cannot be read: "));
		close(fd);
	}
}

static void is_refused_where_there_is_no_file(void **state)
{
	struct kept kept;
	char why[256];
	(void)state;
	assert_false(kept_read(-1, &kept, why, sizeof why));
	kept_free(&kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back_as_it_was),
		cmocka_unit_test(nothing_comes_back_as_nothing),
		cmocka_unit_test(cannot_be_changed_any_more),
		cmocka_unit_test(is_refused_where_it_is_damaged),
		cmocka_unit_test(is_refused_where_there_is_no_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

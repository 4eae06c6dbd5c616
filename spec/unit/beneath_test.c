#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[64], folder[96];

static void path_in(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", root, name);
}

static void write_file(const char *name, const char *text)
{
	char path[160];
	path_in(path, sizeof path, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void make_link(const char *target, const char *name)
{
	char path[160];
	path_in(path, sizeof path, name);
	assert_int_equal(symlink(target, path), 0);
}

static int make_tree(void **state)
{
	char path[160], absolute[160];
	(void)state;
	snprintf(root, sizeof root, "/tmp/beneath-XXXXXX");
	assert_non_null(mkdtemp(root));
	path_in(folder, sizeof folder, "public");
	path_in(path, sizeof path, "public/sub");
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	write_file("secret", "secret");
	write_file("public/a", "a");
	write_file("public/sub/b", "b");
	path_in(path, sizeof path, "public/fifo");
	assert_int_equal(mkfifo(path, 0600), 0);
	path_in(absolute, sizeof absolute, "secret");
	make_link(absolute, "public/absolute");
	path_in(absolute, sizeof absolute, "public/a");
	make_link(absolute, "public/absolute_inside");
	make_link("../secret", "public/out");
	make_link("..", "public/up");
	make_link("/dev/zero", "public/device");
	make_link("../a", "public/sub/inside");
	make_link("loop", "public/loop");
	return 0;
}

static int remove_tree(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "rm -r '%s'", root);
	return system(command);
}

/* What is read, or the error. */
static int read_by(int (*open_by)(const char *, const char *, bool, struct stat *), const char *path,
		   bool is_known, char *byte)
{
	struct stat st;
	int fd = open_by(folder, path, is_known, &st);
	if (fd < 0)
		return fd;
	assert_true(S_ISREG(st.st_mode) && st.st_size == 1);
	assert_int_equal(read(fd, byte, 1), 1);
	close(fd);
	return 0;
}

static const struct {
	const char *path;
	int err, err_by_steps;
} CASES[] = {
	{ "a", 0, 0 },
	{ "sub/b", 0, 0 },
	{ "sub/inside", 0, -EACCES },
	{ "", -EISDIR, -EISDIR },
	{ "sub", -EISDIR, -EISDIR },
	{ "none", -ENOENT, -ENOENT },
	{ "a/b", -ENOTDIR, -ENOTDIR },
	{ "../secret", -EACCES, -EACCES },
	{ "sub/../../secret", -EACCES, -EACCES },
	{ "up/secret", -EACCES, -ENOTDIR },
	{ "out", -EACCES, -EACCES },
	{ "absolute", -EACCES, -EACCES },
	{ "absolute_inside", -EACCES, -EACCES },
	{ "/etc/passwd", -EACCES, -EACCES },
	{ "fifo", -EACCES, -EACCES },
	{ "device", -EACCES, -EACCES },
	{ "loop", -EACCES, -EACCES },
};

static void opens_what_is_beneath_and_nothing_else(void **state)
{
	(void)state;
	/* By a name that was once a file's, and by one that nobody has asked for yet. */
	for (size_t i = 0; i < 2 * (sizeof CASES / sizeof *CASES); i++) {
		char byte = 0;
		bool is_known = i % 2;
		int err = read_by(beneath_open, CASES[i / 2].path, is_known, &byte);
		if (err != CASES[i / 2].err &&
		    err != CASES[i / 2].err_by_steps) /* an older kernel has no openat2(2) */
			fail_msg("%s: %d", CASES[i / 2].path, err);
		err = read_by(beneath_open_by_steps, CASES[i / 2].path, is_known, &byte);
		if (err != CASES[i / 2].err_by_steps)
			fail_msg("%s by steps: %d", CASES[i / 2].path, err);
	}
}

static void says_that_there_is_no_folder(void **state)
{
	struct stat st;
	char path[160];
	(void)state;
	path_in(path, sizeof path, "none");
	assert_int_equal(beneath_open(path, "a", false, &st), -ENOENT);
	path_in(path, sizeof path, "secret");
	assert_int_equal(beneath_open(path, "a", false, &st), -ENOTDIR);
	char name[400];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_int_equal(beneath_open(folder, name, false, &st), -ENAMETOOLONG);
	assert_int_equal(beneath_open_by_steps(folder, name, false, &st), -ENAMETOOLONG);
}

/* Descriptors are not lost, whatever has gone wrong. */
static void keeps_no_descriptor(void **state)
{
	(void)state;
	int before = dup(0);
	close(before);
	opens_what_is_beneath_and_nothing_else(state);
	int after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_what_is_beneath_and_nothing_else),
		cmocka_unit_test(says_that_there_is_no_folder),
		cmocka_unit_test(keeps_no_descriptor),
	};
	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}

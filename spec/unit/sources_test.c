#include "config/sources.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static const char *in_root(const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", root, name);
	return path;
}

static void put(const char *name, const char *text)
{
	FILE *file = fopen(in_root(name), "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void folder(const char *name)
{
	assert_int_equal(0, mkdir(in_root(name), 0700));
}

static void link_to(const char *target, const char *name)
{
	assert_int_equal(0, symlink(target, in_root(name)));
}

static int make(void **state)
{
	(void)state;
	snprintf(root, sizeof root, "/tmp/perilune-spec-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	put("app.lua", "return 1");
	return 0;
}

static int clean(void **state)
{
	(void)state;
	char line[128];
	snprintf(line, sizeof line, "rm -rf %s", root);
	return system(line);
}

static struct sources *read_app(void)
{
	struct sources *sources = sources_read(in_root("app.lua"));
	assert_non_null(sources);
	assert_string_equal("", sources->failed);
	return sources;
}

static uint64_t key_now(void)
{
	struct sources *sources = read_app();
	uint64_t key = sources->key;
	sources_free(sources);
	return key;
}

static void has_what_can_be_required(void **state)
{
	(void)state;
	folder("a");
	folder("a/b-c");
	folder(".git");
	put("a/b-c/init.lua", "deep");
	put("words.lua", "words");
	put(".hidden.lua", "");
	put(".git/x.lua", "");
	put("a.b.lua", "");
	put("notes.txt", "");
	struct sources *sources = read_app();
	assert_int_equal(3, sources->count);
	assert_string_equal("", sources->cut);
	const struct source *deep = sources_find(sources, "a/b-c/init.lua");
	assert_non_null(deep);
	assert_int_equal(4, deep->bytes);
	assert_memory_equal("deep", deep->text, 4);
	assert_non_null(sources_find(sources, "app.lua"));
	assert_null(sources_find(sources, "notes.txt"));
	sources_free(sources);
}

static void follows_links_within_the_folder_only(void **state)
{
	(void)state;
	folder("lib");
	put("lib/x.lua", "x");
	link_to("lib", "v1");
	link_to("lib/x.lua", "y.lua");
	link_to("/tmp", "out");
	link_to("/etc/passwd", "passwd.lua");
	link_to("nowhere", "gone.lua");
	link_to("..", "lib/up");
	link_to(".", "again");
	struct sources *sources = read_app();
	assert_string_equal("", sources->cut);
	assert_int_equal(4, sources->count);
	assert_non_null(sources_find(sources, "v1/x.lua"));
	assert_non_null(sources_find(sources, "y.lua"));
	sources_free(sources);
}

static void a_pipe_is_not_waited_for(void **state)
{
	(void)state;
	assert_int_equal(0, mkfifo(in_root("pipe.lua"), 0600));
	struct sources *sources = read_app();
	assert_null(sources_find(sources, "pipe.lua"));
	sources_free(sources);
}

static void the_key_tells_names_and_texts_apart(void **state)
{
	(void)state;
	put("a.lua", "1");
	uint64_t first = key_now();
	assert_true(first == key_now());
	put("a.lua", "2");
	assert_true(first != key_now());
	put("a.lua", "1");
	assert_true(first == key_now());
	char from[256];
	snprintf(from, sizeof from, "%s", in_root("a.lua"));
	assert_int_equal(0, rename(from, in_root("b.lua")));
	assert_true(first != key_now());
	put("a.lua", "");
	uint64_t empty = key_now();
	assert_int_equal(0, unlink(in_root("a.lua")));
	assert_true(empty != key_now());
}

static void too_many_files_are_cut_and_it_is_said(void **state)
{
	(void)state;
	for (int i = 0; i < 2100; i++) {
		char name[32];
		snprintf(name, sizeof name, "m%d.lua", i);
		put(name, "");
	}
	struct sources *sources = read_app();
	assert_int_equal(2000, sources->count);
	assert_non_null(strstr(sources->cut, "at most 2000 Lua files"));
	assert_non_null(sources_find(sources, "app.lua"));
	sources_free(sources);
}

static void a_script_that_is_not_there_is_in_the_set(void **state)
{
	(void)state;
	struct sources *sources = sources_read("/nowhere/app.lua");
	assert_int_equal(1, sources->count);
	assert_int_equal(ENOENT, sources->files[0].err);
	sources_free(sources);
}

static void what_is_no_file_is_not_read(void **state)
{
	(void)state;
	struct sources *sources = sources_read("/dev/zero");
	assert_int_equal(EACCES, sources->files[0].err);
	assert_string_equal("a device", sources->files[0].instead);
	assert_null(sources->files[0].text);
	sources_free(sources);
}

static void a_file_that_is_too_large_is_not_read(void **state)
{
	(void)state;
	assert_int_equal(0, truncate(in_root("app.lua"), SOURCE_MAX_BYTES + 1));
	struct sources *sources = read_app();
	assert_int_equal(EFBIG, sources_find(sources, "app.lua")->err);
	assert_null(sources_find(sources, "app.lua")->text);
	sources_free(sources);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(has_what_can_be_required, make, clean),
		cmocka_unit_test_setup_teardown(follows_links_within_the_folder_only, make, clean),
		cmocka_unit_test_setup_teardown(a_pipe_is_not_waited_for, make, clean),
		cmocka_unit_test_setup_teardown(the_key_tells_names_and_texts_apart, make, clean),
		cmocka_unit_test_setup_teardown(too_many_files_are_cut_and_it_is_said, make, clean),
		cmocka_unit_test(a_script_that_is_not_there_is_in_the_set),
		cmocka_unit_test(what_is_no_file_is_not_read),
		cmocka_unit_test_setup_teardown(a_file_that_is_too_large_is_not_read, make, clean),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *name_of(const char *script)
{
	static char name[64];
	control_path_name(script, 42, name, sizeof name);
	return name;
}

static void a_name_is_the_scripts_and_the_process(void **state)
{
	(void)state;
	assert_string_equal(name_of("chat.lua"), "chat-42.sock");
	assert_string_equal(name_of("/srv/apps/chat.lua"), "chat-42.sock");
	assert_string_equal(name_of("chat"), "chat-42.sock");
	assert_string_equal(name_of(".lua"), ".lua-42.sock");
}

static void a_name_that_all_have_is_the_folders(void **state)
{
	(void)state;
	assert_string_equal(name_of("/srv/chat/app.lua"), "chat-42.sock");
	assert_string_equal(name_of("apps/chat/init.lua"), "chat-42.sock");
	assert_string_equal(name_of("/srv/chat.lua/app.lua"), "chat.lua-42.sock");
	assert_string_equal(name_of("/srv/chat/app"), "app-42.sock");
	assert_string_equal(name_of("/srv/chat/myapp.lua"), "myapp-42.sock");
	assert_string_equal(name_of("/app.lua"), "app-42.sock");
	assert_string_equal(name_of("nosuch/../app.lua"), "app-42.sock");
	/* Where the path does not say, what the folder is called. */
	assert_int_equal(chdir("/usr/bin"), 0);
	assert_string_equal(name_of("app.lua"), "bin-42.sock");
	assert_string_equal(name_of("./init.lua"), "bin-42.sock");
	assert_string_equal(name_of("../app.lua"), "usr-42.sock");
	assert_int_equal(chdir("/"), 0);
	assert_string_equal(name_of("app.lua"), "app-42.sock");
}

static void a_name_is_plain_and_short(void **state)
{
	(void)state;
	char script[5000];
	memset(script, 'x', sizeof script - 1);
	script[sizeof script - 1] = '\0';
	assert_string_equal(name_of("a b\n\xc3\xa9.lua"), "a_b___-42.sock");
	assert_true(strlen(name_of(script)) < 48);
}

static char folder[] = "/tmp/perilune-path-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) && !setenv("XDG_RUNTIME_DIR", folder, 1) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	char inner[64];
	snprintf(inner, sizeof inner, "%s/perilune", folder);
	return rmdir(inner) || rmdir(folder);
}

static void the_users_folder_is_made_and_used(void **state)
{
	(void)state;
	char path[CONTROL_PATH_BYTES], expected[CONTROL_PATH_BYTES], why[200];
	snprintf(expected, sizeof expected, "%s/perilune/app-%ld.sock", folder, (long)getpid());
	for (int i = 0; i < 2; i++) {
		assert_int_equal(control_path_default("app.lua", path, why, sizeof why), 0);
		assert_string_equal(path, expected);
	}
}

static void a_folder_that_cannot_be_made_is_explained(void **state)
{
	(void)state;
	char path[CONTROL_PATH_BYTES], why[200];
	setenv("XDG_RUNTIME_DIR", "/nowhere/at/all", 1);
	assert_int_equal(control_path_default("app.lua", path, why, sizeof why), -1);
	assert_string_equal(why, "/nowhere/at/all/perilune: No such file or directory");
	setenv("XDG_RUNTIME_DIR", folder, 1);
}

static void visit(void *data, const char *path)
{
	(void)path;
	++*(int *)data;
}

static void only_sockets_by_name_are_visited(void **state)
{
	(void)state;
	char path[64];
	int visited = 0;
	static const char *const NAMES[] = { "a-1.sock", "b", ".sock" };
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/perilune/%s", folder, NAMES[i]);
		fclose(fopen(path, "w"));
	}
	assert_int_equal(control_path_each(0, visit, &visited), 1);
	assert_int_equal(visited, 1);
	assert_int_equal(control_path_each(2, visit, &visited), -1);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/perilune/%s", folder, NAMES[i]);
		unlink(path);
	}
}

static void a_server_is_called_by_its_name_or_its_process(void **state)
{
	(void)state;
	static const struct {
		const char *path, *name;
		bool is_called;
	} CASES[] = {
		{ "/run/perilune/chat-47.sock", "chat", true },
		{ "/run/perilune/chat-47.sock", "47", true },
		{ "/run/perilune/chat-47.sock", "chat-47", true },
		{ "/run/perilune/chat-47.sock", "chat-47.sock", true },
		{ "/run/perilune/chat-47.sock", "chat-", false },
		{ "/run/perilune/chat-47.sock", "cha", false },
		{ "/run/perilune/chat-47.sock", "7", false },
		{ "/run/perilune/chat-47.sock", "-47", false },
		{ "/run/perilune/chat-47.sock", "", false },
		{ "/run/perilune/chat-room-47.sock", "chat-room", true },
		{ "/run/perilune/chat-room-47.sock", "chat", false },
		{ "/run/perilune/chat-2-47.sock", "chat-2", true },
		{ "/run/perilune/chat-2-47.sock", "chat", false },
		{ "/run/perilune/front.sock", "front", true },
		{ "/run/perilune/47.sock", "47", true },
		{ "/run/perilune/-47.sock", "", false },
		{ "/run/perilune/chat-47", "chat", false },
		{ "x", "x", false },
	};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
		if (control_path_is_called(CASES[i].path, CASES[i].name) != CASES[i].is_called)
			fail_msg("%s and '%s'", CASES[i].path, CASES[i].name);
}

static void a_path_that_is_too_long_is_not_cut(void **state)
{
	(void)state;
	char path[200];
	memset(path, 'x', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	assert_int_equal(control_path_connect(path), -ENAMETOOLONG);
	assert_int_equal(control_path_connect("/nowhere/x.sock"), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_the_scripts_and_the_process),
		cmocka_unit_test(a_name_that_all_have_is_the_folders),
		cmocka_unit_test(a_name_is_plain_and_short),
		cmocka_unit_test(the_users_folder_is_made_and_used),
		cmocka_unit_test(a_folder_that_cannot_be_made_is_explained),
		cmocka_unit_test(only_sockets_by_name_are_visited),
		cmocka_unit_test(a_server_is_called_by_its_name_or_its_process),
		cmocka_unit_test(a_path_that_is_too_long_is_not_cut),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

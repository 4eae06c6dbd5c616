#include "cli/environment.h"

#include "base/suggest.h"
#include "config/config.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PREFIX "PERILUNE_"

enum { PREFIX_BYTES = sizeof PREFIX - 1, NAME_BYTES = 64, PATHS_MAX = 128 };

/* What is read elsewhere: where our modules are, and settings of our own specs. */
static bool is_exempt(const char *name)
{
	return !strcmp(name, "LUA_PATH") || !strncmp(name, "TEST_", 5);
}

/*
 * The next variable of ours from environ[*at] on: its name without the prefix, in `name` (cut: none of ours is
 * so long). Returns its value, or NULL at the end.
 */
static const char *next_variable(size_t *at, char name[NAME_BYTES])
{
	for (; environ[*at]; ++*at) {
		const char *entry = environ[*at], *equals = strchr(entry, '=');
		if (!equals || strncmp(entry, PREFIX, PREFIX_BYTES))
			continue;
		snprintf(name, NAME_BYTES, "%.*s", (int)(equals - entry) - PREFIX_BYTES,
			 entry + PREFIX_BYTES);
		if (is_exempt(name))
			continue;
		++*at;
		return equals + 1;
	}
	return NULL;
}

/* "limits.per_ip" → "LIMITS_PER_IP". */
static void environment_name_of(const char *path, char name[NAME_BYTES])
{
	size_t i = 0;
	for (; path[i] && i < NAME_BYTES - 1; i++)
		name[i] = path[i] == '.' ? '_' : (char)toupper((unsigned char)path[i]);
	name[i] = '\0';
}

static const char *environment_path_of(const struct environment *environment, const char *name)
{
	char candidate[NAME_BYTES];
	for (char **path = environment->paths; path && *path; path++) {
		environment_name_of(*path, candidate);
		if (!strcmp(candidate, name))
			return *path;
	}
	return NULL;
}

int environment_open(struct environment *environment)
{
	char name[NAME_BYTES];
	size_t at = 0;
	environment->paths = NULL;
	return next_variable(&at, name) ? config_paths(&environment->paths) : 0;
}

void environment_close(struct environment *environment)
{
	config_free_paths(environment->paths);
	environment->paths = NULL;
}

int environment_apply(const struct environment *environment, struct config *config)
{
	char name[NAME_BYTES], origin[NAME_BYTES + 24];
	const char *value;
	int err = 0;
	for (size_t at = 0; !err && (value = next_variable(&at, name));) {
		const char *path = environment_path_of(environment, name);
		/* Empty is how many tools write "not set". */
		if (!path || !*value)
			continue;
		snprintf(origin, sizeof origin, "env " PREFIX "%s", name);
		err = config_add_override(config, path, value, origin);
	}
	return err;
}

static bool ends_in(const char *text, const char *tail)
{
	size_t text_len = strlen(text), tail_len = strlen(tail);
	return tail_len < text_len && text[text_len - tail_len - 1] == '_' &&
	       !strcmp(text + text_len - tail_len, tail);
}

/* What is set so elsewhere. */
static const char *environment_find_synonym(const char *name)
{
	static const char *const SYNONYMS[][2] = {
		{ "PORT", "LISTEN" },         { "HOST", "LISTEN" },        { "BIND", "LISTEN" },
		{ "ADDRESS", "LISTEN" },      { "ADDR", "LISTEN" },        { "THREADS", "WORKERS" },
		{ "CONCURRENCY", "WORKERS" }, { "LOGLEVEL", "LOG_LEVEL" }, { "LOGFILE", "LOG_FILE" },
		{ "DEBUG", "LOG_LEVEL" },
	};
	for (size_t i = 0; i < sizeof SYNONYMS / sizeof *SYNONYMS; i++)
		if (!strcmp(SYNONYMS[i][0], name))
			return SYNONYMS[i][1];
	return NULL;
}

/* The name nearest to a misspelt one, or the only half of which was given: CONNECTIONS. */
static const char *find_near(const char *name, const char *const *names, size_t n)
{
	const char *near = environment_find_synonym(name);
	if (!near)
		near = suggest_nearest(name, names, n);
	for (size_t i = 0; i < n && !near; i++)
		if (ends_in(names[i], name))
			near = names[i];
	return near;
}

void environment_unknown(const struct environment *environment,
			 void (*report)(const char *name, const char *near))
{
	char texts[PATHS_MAX][NAME_BYTES], name[NAME_BYTES];
	char shown[NAME_BYTES + PREFIX_BYTES], near_shown[NAME_BYTES + PREFIX_BYTES];
	const char *names[PATHS_MAX];
	size_t n = 0;
	if (!environment->paths)
		return;
	for (char **path = environment->paths; *path && n < PATHS_MAX; path++, n++) {
		environment_name_of(*path, texts[n]);
		names[n] = texts[n];
	}
	for (size_t at = 0; next_variable(&at, name);) {
		if (environment_path_of(environment, name))
			continue;
		const char *near = find_near(name, names, n);
		snprintf(shown, sizeof shown, PREFIX "%s", name);
		snprintf(near_shown, sizeof near_shown, PREFIX "%s", near ? near : "");
		report(shown, near ? near_shown : NULL);
	}
}

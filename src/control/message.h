/*
 * What goes over the control socket: a flat object a line, either way. Requests are read strictly; replies have
 * "ok", and "error" (a text for people) with "code" (a word for programs) when that is false.
 *
 * Leaf; any thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum message_type { MESSAGE_BOOLEAN, MESSAGE_NUMBER, MESSAGE_TEXT };

/* What a request may have beside its "command". */
struct message_field {
	const char *name; /* NULL ends a list */
	enum message_type type;
	bool required;
};

/*
 * One object with a text "command": no duplicates, nothing after it. NULL: why not, in `why`. To be given to
 * json_decref().
 */
json_t *message_parse(const char *line, size_t len, char *why, size_t size);

/* Does the request have what it must, and nothing else? False: explained. Numbers are whole and not negative. */
bool message_check(const json_t *request, const struct message_field *fields, char *why, size_t size);

/* Of a request that was checked; a field that is not there is false. */
bool message_flag(const json_t *request, const char *name);

/* {"ok":true}, to be filled; {"ok":false,…}. NULL: no memory. */
json_t *message_ok(void);
json_t *message_error(const char *code, const char *text);

/*
 * Sets a text whatever its bytes are: JSON is UTF-8, names of files and messages of scripts need not be. One that is
 * not is escaped as people are shown it. NULL is null.
 */
void message_set_text(json_t *object, const char *name, const char *text);

/* As a line with its line feed, fit for a terminal; to be freed. NULL: no memory, or the message is NULL. */
char *message_line(const json_t *message);

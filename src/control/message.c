#include "control/message.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

json_t *message_parse(const char *line, size_t len, char *why, size_t size)
{
	json_error_t error;
	json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	if (!request) {
		snprintf(why, size, "not a line of JSON: %s", error.text);
		return NULL;
	}
	if (json_is_string(json_object_get(request, "command")))
		return request;
	snprintf(why, size, "a request is an object such as {\"command\":\"status\"}");
	json_decref(request);
	return NULL;
}

static bool has_type(const json_t *value, enum message_type type)
{
	switch (type) {
	case MESSAGE_BOOLEAN:
		return json_is_boolean(value);
	case MESSAGE_NUMBER:
		return json_is_integer(value) && json_integer_value(value) >= 0;
	case MESSAGE_TEXT:
		return json_is_string(value);
	}
	return false;
}

static const struct message_field *message_find(const struct message_field *fields, const char *name)
{
	for (; fields->name; fields++)
		if (!strcmp(fields->name, name))
			return fields;
	return NULL;
}

bool message_check(const json_t *request, const struct message_field *fields, char *why, size_t size)
{
	static const char *const EXPECTED[] = { "true or false", "a whole number", "a text" };
	const char *name;
	json_t *value;
	json_object_foreach((json_t *)request, name, value)
	{
		if (!strcmp(name, "command"))
			continue;
		const struct message_field *field = message_find(fields, name);
		if (!field) {
			snprintf(why, size, "unknown field \"%.40s\"", name);
			return false;
		}
		if (!has_type(value, field->type)) {
			snprintf(why, size, "\"%s\" is to be %s", name, EXPECTED[field->type]);
			return false;
		}
	}
	for (; fields->name; fields++) {
		if (fields->required && !json_object_get(request, fields->name)) {
			snprintf(why, size, "\"%s\" is missing", fields->name);
			return false;
		}
	}
	return true;
}

bool message_flag(const json_t *request, const char *name)
{
	return json_is_true(json_object_get(request, name));
}

/* ---- replies ---- */

json_t *message_ok(void)
{
	return json_pack("{s:b}", "ok", 1);
}

json_t *message_error(const char *code, const char *text)
{
	json_t *reply = json_pack("{s:b,s:s}", "ok", 0, "code", code);
	message_set_text(reply, "error", text);
	return reply;
}

/* A text that is no UTF-8, as people are shown it. NULL: no memory. */
static json_t *text_of_foreign_bytes(const char *text)
{
	size_t n = strlen(text), room = 4 * n + 4;
	char *shown = malloc(room);
	if (!shown)
		return NULL;
	text_escape(TEXT_LINES, shown, room, text, n);
	json_t *value = json_string(shown);
	free(shown);
	return value;
}

void message_set_text(json_t *object, const char *name, const char *text)
{
	json_t *value = text ? json_string(text) : json_null();
	if (!value && text)
		value = text_of_foreign_bytes(text);
	json_object_set_new(object, name, value);
}

/*
 * What jansson leaves as it is and a terminal does not: outside of strings there is nothing of the kind. Quotes and
 * backslashes are its own. NULL: no memory.
 */
static char *escape_line(const char *line, size_t len)
{
	char *escaped = malloc(6 * len + 2), *to = escaped, piece[TEXT_PIECE_BYTES];
	for (size_t i = 0, taken; escaped && i < len; i += taken) {
		const char *from = line + i;
		size_t n = taken = text_plain(TEXT_LINE, line + i, len - i);
		if (!taken) {
			n = text_piece(TEXT_JSON, line + i, len - i, piece, &taken);
			from = piece;
		}
		memcpy(to, from, n);
		to += n;
	}
	if (escaped)
		memcpy(to, "\n", 2);
	return escaped;
}

char *message_line(const json_t *message)
{
	char *plain = message ? json_dumps(message, JSON_COMPACT) : NULL;
	char *line = plain ? escape_line(plain, strlen(plain)) : NULL;
	free(plain);
	return line;
}

#include "control/message.h"

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

static const struct message_field *find(const struct message_field *fields, const char *name)
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
		const struct message_field *field = find(fields, name);
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

/* NULL: no memory. */
static json_t *text_without_foreign_bytes(const char *text)
{
	char *copy = strdup(text);
	for (char *at = copy; at && *at; at++)
		if ((unsigned char)*at >= 0x80)
			*at = '?';
	json_t *value = copy ? json_string(copy) : NULL;
	free(copy);
	return value;
}

void message_set_text(json_t *object, const char *name, const char *text)
{
	json_t *value = text ? json_string(text) : json_null();
	if (!value && text)
		value = text_without_foreign_bytes(text);
	json_object_set_new(object, name, value);
}

char *message_line(const json_t *message)
{
	size_t room = message ? json_dumpb(message, NULL, 0, JSON_COMPACT) : 0;
	char *line = room ? malloc(room + 2) : NULL;
	if (!line)
		return NULL;
	size_t len = json_dumpb(message, line, room, JSON_COMPACT);
	memcpy(line + (len < room ? len : room), "\n", 2);
	return line;
}

#include "workbench/entries.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 10000 };

static void free_entry(struct entry *entry)
{
	while (entry->fields) {
		struct entry_field *next = entry->fields->next;
		free((char *)entry->fields->field.key);
		free((char *)entry->fields->field.text);
		free(entry->fields);
		entry->fields = next;
	}
	free(entry->message);
	free(entry);
}

/* Terminated, whatever is in it. */
static char *copy_of(const char *text, size_t n)
{
	char *copy = malloc(n + 1);
	if (!copy)
		return NULL;
	memcpy(copy, text, n);
	copy[n] = '\0';
	return copy;
}

static bool add_field(struct entry *entry, const struct log_field *field)
{
	bool is_text = field->kind == LOG_IS_TEXT;
	if (log_leaves_out(field))
		return true;
	struct entry_field *kept = calloc(1, sizeof *kept);
	if (!kept)
		return false;
	kept->next = entry->fields;
	entry->fields = kept;
	kept->field = *field;
	kept->field.key = strdup(field->key);
	kept->field.text = is_text ? copy_of(field->text, field->len) : NULL;
	return kept->field.key && (kept->field.text || !is_text);
}

static struct entry *make_entry(const struct log_entry *logged)
{
	struct entry *entry = calloc(1, sizeof *entry);
	if (!entry)
		return NULL;
	entry->level = logged->level;
	entry->message = copy_of(logged->message, logged->message_bytes);
	entry->message_bytes = logged->message_bytes;
	bool ok = entry->message;
	for (size_t i = 0; ok && i < logged->count; i++)
		ok = add_field(entry, &logged->fields[i]);
	if (ok)
		return entry;
	free_entry(entry);
	return NULL;
}

static void entries_take(struct log_sink *sink, const struct log_entry *logged)
{
	struct entries *entries = (struct entries *)(void *)sink;
	struct entry *entry = entries->count < ENTRIES_MAX ? make_entry(logged) : NULL;
	if (!entry) {
		entries->lost++;
		return;
	}
	entry->at_ms = *entries->now_ms;
	*entries->end = entry;
	entries->end = &entry->next;
	entries->count++;
	entries->faults += !strcmp(logged->message, "handler failed");
}

void entries_init(struct entries *entries, const uint64_t *now_ms)
{
	*entries = (struct entries){ .sink.take = entries_take, .now_ms = now_ms };
	entries->end = &entries->first;
}

void entries_deinit(struct entries *entries)
{
	while (entries->first) {
		struct entry *next = entries->first->next;
		free_entry(entries->first);
		entries->first = next;
	}
	entries->end = &entries->first;
}

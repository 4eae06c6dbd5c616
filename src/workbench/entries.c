#include "workbench/entries.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES_MAX = 10000 };

static void free_entry(struct entry *entry)
{
	while (entry->fields) {
		struct entry_field *next = entry->fields->next;
		free(entry->fields->key);
		free(entry->fields->text);
		free(entry->fields);
		entry->fields = next;
	}
	free(entry->message);
	free(entry);
}

static bool add_field(struct entry *entry, const struct log_field *field)
{
	if (field->is_text && (!field->text || !*field->text))
		return true;
	struct entry_field *kept = calloc(1, sizeof *kept);
	if (!kept)
		return false;
	kept->next = entry->fields;
	entry->fields = kept;
	kept->key = strdup(field->key);
	kept->text = field->is_text ? strdup(field->text) : NULL;
	kept->number = field->number;
	return kept->key && (kept->text || !field->is_text);
}

static struct entry *make_entry(enum log_level level, const char *message, const struct log_field *fields,
				size_t n)
{
	struct entry *entry = calloc(1, sizeof *entry);
	if (!entry)
		return NULL;
	entry->level = level;
	entry->message = strdup(message);
	bool ok = entry->message;
	for (size_t i = 0; ok && i < n; i++)
		ok = add_field(entry, &fields[i]);
	if (ok)
		return entry;
	free_entry(entry);
	return NULL;
}

static void take(struct log_sink *sink, enum log_level level, const char *message,
		 const struct log_field *fields, size_t n)
{
	struct entries *entries = (struct entries *)(void *)sink;
	struct entry *entry = entries->count < ENTRIES_MAX ? make_entry(level, message, fields, n) : NULL;
	if (!entry) {
		entries->lost++;
		return;
	}
	entry->at_ms = *entries->now_ms;
	*entries->end = entry;
	entries->end = &entry->next;
	entries->count++;
	entries->faults += !strcmp(message, "handler failed");
}

void entries_init(struct entries *entries, const uint64_t *now_ms)
{
	*entries = (struct entries){ .sink.take = take, .now_ms = now_ms };
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

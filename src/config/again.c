/* A configuration that follows another: the same script, loaded anew while the old one is being served. */
#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config *config_again(const struct config *config)
{
	struct config *next = calloc(1, sizeof *next);
	if (!next)
		return NULL;
	atomic_init(&next->refs, 1);
	next->memory_bytes = config->memory_bytes;
	next->script = strdup(config->script);
	bool ok = next->script;
	for (size_t i = 0; ok && i < config->override_count; i++) {
		const struct override *override = &config->overrides[i];
		ok = !config_add_override(next, override->path, override->value, override->origin);
	}
	if (ok)
		return next;
	config_drop(next);
	return NULL;
}

void config_hold(struct config *config)
{
	atomic_fetch_add_explicit(&config->refs, 1, memory_order_relaxed);
}

void config_drop(struct config *config)
{
	if (atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) != 1)
		return;
	config_free(config);
	free(config);
}

/* ---- listeners ---- */

int config_find_slot(const struct config *config, unsigned slot, unsigned guess)
{
	if (slot == LISTENER_NO_SLOT)
		return -1;
	if (guess < config->listener_count && config->listeners[guess].slot == slot)
		return (int)guess;
	for (unsigned i = 0; i < config->listener_count; i++)
		if (config->listeners[i].slot == slot)
			return (int)i;
	return -1;
}

bool config_has_same_listeners(const struct config *a, const struct config *b)
{
	bool same = a->listener_count == b->listener_count;
	for (unsigned i = 0; same && i < a->listener_count; i++)
		same = config_find_slot(b, a->listeners[i].slot, i) >= 0;
	return same;
}

static bool again_is_same(const struct listener_config *a, const struct listener_config *b, bool by_name)
{
	/* The same socket, be it with TLS or without. */
	bool is_same = a->kind == b->kind && !strcmp(strchr(a->address, ':'), strchr(b->address, ':'));
	return is_same && (!by_name || !strcmp(a->name, b->name));
}

/* The first of that address, and if wanted of that name, whose slot nobody has yet. */
static void again_follow(const struct config *now, struct config *next, struct listener_config *one,
			 bool by_name)
{
	for (unsigned i = 0; i < now->listener_count && one->slot == LISTENER_NO_SLOT; i++) {
		const struct listener_config *before = &now->listeners[i];
		if (again_is_same(before, one, by_name) && config_find_slot(next, before->slot, i) < 0)
			one->slot = before->slot;
	}
}

void config_follow(const struct config *now, struct config *next)
{
	/* Several may have one address where the system chooses the port; then names tell them apart. */
	for (unsigned i = 0; i < next->listener_count; i++)
		again_follow(now, next, &next->listeners[i], true);
	for (unsigned i = 0; i < next->listener_count; i++)
		again_follow(now, next, &next->listeners[i], false);
}

/* ---- kinds of agents ---- */

int config_find_kind(const struct config *config, const char *name, size_t n)
{
	for (unsigned i = 0; i < config->kind_count; i++)
		if (strlen(config->kinds[i].name) == n && !memcmp(config->kinds[i].name, name, n))
			return (int)i;
	return -1;
}

/* ---- what cannot follow ---- */

struct differences {
	char *text;
	size_t size, used;
};

static void again_note(struct differences *all, bool differs, const char *key)
{
	if (!differs || strstr(all->text, key) || all->used >= all->size)
		return;
	all->used += (size_t)snprintf(all->text + all->used, all->size - all->used, "%s%s",
				      all->used ? ", " : "", key);
}

static void compare_listeners(struct differences *all, const struct listener_config *now,
			      const struct listener_config *next)
{
	/* The file is there already, and what the umask was to make of it is not known. */
	again_note(all, now->mode != next->mode, "mode");
	/* The system wants to know before it binds. */
	again_note(all, now->reuse_port != next->reuse_port, "reuse_port");
	/* Those who are in already were not counted by address. */
	again_note(all, !now->per_ip && next->per_ip, "limits.per_ip");
}

static const char *again_text(const char *value)
{
	return value ? value : "";
}

bool config_needs_restart(const struct config *now, const struct config *next, char *what, size_t size)
{
	struct differences all = { what, size, 0 };
	*what = '\0';
	again_note(&all, now->workers != next->workers, "workers");
	again_note(&all, now->buffer_bytes != next->buffer_bytes, "limits.buffers");
	again_note(&all, strcmp(now->control, next->control) != 0, "control");
	again_note(&all, strcmp(again_text(now->log_file), again_text(next->log_file)) != 0, "log.file");
	again_note(&all, now->log_format != next->log_format, "log.format");
	again_note(&all, now->log_level != next->log_level, "log.level");
	for (unsigned i = 0; i < next->listener_count; i++) {
		int before = config_find_slot(now, next->listeners[i].slot, i);
		if (before >= 0)
			compare_listeners(&all, &now->listeners[before], &next->listeners[i]);
	}
	return *what;
}

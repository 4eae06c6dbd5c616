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

/* ---- what cannot follow ---- */

struct differences {
	char *text;
	size_t size, used;
};

static void note(struct differences *all, bool differs, const char *key)
{
	if (!differs || strstr(all->text, key) || all->used >= all->size)
		return;
	all->used += (size_t)snprintf(all->text + all->used, all->size - all->used, "%s%s",
				      all->used ? ", " : "", key);
}

/* These are properties of a listening socket, and of what waits in its backlog. */
static void compare_listeners(struct differences *all, const struct listener_config *now,
			      const struct listener_config *next)
{
	note(all, strcmp(now->address, next->address) != 0, "listen");
	note(all, now->backlog != next->backlog, "backlog");
	note(all, now->keepalive_ms != next->keepalive_ms, "keepalive");
	note(all, now->nodelay != next->nodelay, "nodelay");
	note(all, now->mode != next->mode, "mode");
	/* Those who are in already were not counted by address. */
	note(all, !now->per_ip && next->per_ip, "limits.per_ip");
}

static const char *text(const char *value)
{
	return value ? value : "";
}

bool config_needs_restart(const struct config *now, const struct config *next, char *what, size_t size)
{
	struct differences all = { what, size, 0 };
	*what = '\0';
	note(&all, now->workers != next->workers, "workers");
	note(&all, now->buffer_bytes != next->buffer_bytes, "limits.buffers");
	note(&all, strcmp(now->control, next->control) != 0, "control");
	note(&all, strcmp(text(now->log_file), text(next->log_file)) != 0, "log.file");
	note(&all, now->log_format != next->log_format, "log.format");
	note(&all, now->log_level != next->log_level, "log.level");
	note(&all, now->listener_count != next->listener_count, "listen");
	for (unsigned i = 0; i < now->listener_count && i < next->listener_count; i++)
		compare_listeners(&all, &now->listeners[i], &next->listeners[i]);
	return *what;
}

#include "server/listeners.h"

#include "base/descriptors.h"
#include "base/log.h"
#include "server/datagrams.h"

#include <stdio.h>
#include <stdlib.h>

static int free_slot(const struct listeners *listeners)
{
	for (int i = 0; i < LISTENER_SLOTS; i++)
		if (!listeners->slots[i])
			return i;
	return -1;
}

/* Those that are to come are in their slots, not bound yet. False: there is no room. */
static bool take_slots(struct listeners *listeners, struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct listener_config *each = &config->listeners[i];
		if (each->slot != LISTENER_NO_SLOT)
			continue;
		int slot = free_slot(listeners);
		struct listener *listener = slot < 0 ? NULL : calloc(1, sizeof *listener);
		if (!listener)
			return false;
		listener->config = each;
		listener->fd = -1;
		listeners->slots[slot] = listener;
		each->slot = (uint16_t)slot;
	}
	return true;
}

static int listeners_fail(const char *what, const char *error, char *why, size_t size)
{
	log_write(LOG_ERROR, what, F_TEXT("error", error));
	if (!*why)
		snprintf(why, size, "%s: %s", what, error);
	return -1;
}

/*
 * Ours that is at the path already, or NULL: one socket has many paths, by links of folders and "//". A socket that was
 * bound and does not listen yet looks like one that was left behind, and would be replaced.
 */
static const struct listener *at_path(const struct listeners *listeners, const struct listener_config *config)
{
	if (config->kind != LISTENER_UNIX)
		return NULL;
	for (int i = 0; i < LISTENER_SLOTS; i++) {
		const struct listener *each = listeners->slots[i];
		if (each && each->fd >= 0 && each->config->kind == LISTENER_UNIX &&
		    socket_file_is_at(&each->file, config->path))
			return each;
	}
	return NULL;
}

/* Bound by us. 0 or an error, explained. */
static int bind_anew(const struct listeners *listeners, struct listener *listener, char *why, size_t size)
{
	const struct listener_config *config = listener->config;
	const struct listener *other = at_path(listeners, config);
	if (!other)
		return listener_bind(listener, config, why, size);
	snprintf(why, size, "%s: the same socket as %s", config->address, other->config->address);
	return -1;
}

/* Inherited, or made. 0 or an error, explained. */
static int bind_one(const struct listeners *listeners, struct listener *listener,
		    struct inheritance *inheritance, char *why, size_t size)
{
	const struct listener_config *config = listener->config;
	struct inherited *inherited = inheritance ? inheritance_find(inheritance, config) : NULL;
	int err = inherited ? listener_adopt(listener, config, inherited, why, size)
			    : bind_anew(listeners, listener, why, size);
	if (!err && inherited && config->kind == LISTENER_UDP)
		err = datagrams_adopt(listener, inheritance, inherited, why, size);
	listener->slot = config->slot;
	return err;
}

static bool takes_any_port(const struct listener_config *config)
{
	return config->kind != LISTENER_UNIX && !config->port;
}

static bool is_to_bind(const struct listeners *listeners, const struct listener_config *config)
{
	return config->slot != LISTENER_NO_SLOT && listeners->slots[config->slot]->fd < 0;
}

/* Who takes any port chooses from what the others leave. */
static int bind_those(struct listeners *listeners, struct config *config, bool any_port,
		      struct inheritance *inheritance, char *why, size_t size)
{
	int err = 0;
	char error[512];
	for (unsigned i = 0; i < config->listener_count; i++) {
		const struct listener_config *each = &config->listeners[i];
		if (takes_any_port(each) != any_port || !is_to_bind(listeners, each) ||
		    !bind_one(listeners, listeners->slots[each->slot], inheritance, error, sizeof error))
			continue;
		if (!descriptors_left(1))
			descriptors_explain(error, sizeof error);
		err = listeners_fail("cannot bind", error, why, size);
	}
	return err;
}

static int listen_all(struct listeners *listeners, struct config *config, char *why, size_t size)
{
	char error[512];
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct listener *listener = listeners->slots[config->listeners[i].slot];
		if (listener->stage == LISTENER_BOUND && listener_listen(listener, error, sizeof error))
			return listeners_fail("cannot listen", error, why, size);
	}
	return 0;
}

int listeners_add(struct listeners *listeners, struct config *config, struct inheritance *inheritance,
		  char *why, size_t size)
{
	*why = '\0';
	listeners_sweep(listeners);
	int err;
	if (take_slots(listeners, config)) {
		err = bind_those(listeners, config, false, inheritance, why, size);
		err = bind_those(listeners, config, true, inheritance, why, size) ? -1 : err;
	} else {
		err = listeners_fail("cannot bind", "not enough memory for all listeners", why, size);
	}
	if (!err)
		err = listen_all(listeners, config, why, size);
	if (err)
		listeners_discard(listeners, config);
	return err;
}

void listeners_tell_lost(const char *address, const char *name, const char *why)
{
	if (why)
		log_write(LOG_WARN, "the file of a Unix socket is gone or replaced: no client finds it",
			  F_TEXT("error", why), F_TEXT("listener", name),
			  F_TEXT("hint", "remove what is in its place and reload, or restart the server"));
	else
		log_write(LOG_WARN, "the file of a Unix socket was gone or replaced: it was made anew",
			  F_TEXT("address", address), F_TEXT("listener", name));
}

void listeners_discard(struct listeners *listeners, struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++) {
		struct listener_config *each = &config->listeners[i];
		struct listener *listener =
		    each->slot == LISTENER_NO_SLOT ? NULL : listeners->slots[each->slot];
		if (!listener || listener->stage != LISTENER_BOUND)
			continue;
		listener_close(listener);
		listener->stage = LISTENER_GONE;
		each->slot = LISTENER_NO_SLOT;
	}
	listeners_sweep(listeners);
}

static void free_at(struct listeners *listeners, unsigned slot)
{
	struct listener *listener = listeners->slots[slot];
	peer_table_free(listener->peers);
	datagrams_free(listener);
	if (listener->held)
		config_drop(listener->held);
	free(listener);
	listeners->slots[slot] = NULL;
}

void listeners_sweep(struct listeners *listeners)
{
	for (unsigned i = 0; i < LISTENER_SLOTS; i++) {
		const struct listener *listener = listeners->slots[i];
		/* Acquired: whoever has left by now has done with it. */
		if (listener && listener->stage == LISTENER_GONE && !listener->has_timer &&
		    !atomic_load_explicit(&listener->open, memory_order_acquire) &&
		    datagrams_are_over(listener))
			free_at(listeners, i);
	}
}

void listeners_free(struct listeners *listeners)
{
	for (unsigned i = 0; i < LISTENER_SLOTS; i++) {
		if (!listeners->slots[i])
			continue;
		listener_close(listeners->slots[i]);
		free_at(listeners, i);
	}
}

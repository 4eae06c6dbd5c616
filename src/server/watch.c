#include "server/watch.h"

#include "base/log.h"
#include "config/folder.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	SETTLE_MS = 100,    /* an editor is done by then */
	PATIENCE_MS = 1000, /* ... and what never comes to rest is told all the same */
	RETRY_MS = 1000,    /* until a folder that was removed is there again */
	FOLDERS_MAX = 512,
};

struct watched_folder {
	uv_fs_event_t event; /* first */
	struct watch *watch;
	struct watched_folder *next;
	char path[];
};

/* ---- what matters ---- */

static const char *leaf_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static bool is_script(const struct watch *watch, const char *name)
{
	size_t length = strlen(name);
	bool is_lua = length > 4 && !strcmp(name + length - 4, ".lua");
	return (is_lua && folder_can_require(name, length - 4)) || !strcmp(name, leaf_of(watch->script));
}

/* Is it a folder with scripts, or was it one? */
static bool is_folder(const struct watched_folder *within, const char *name)
{
	char path[PATH_MAX];
	struct stat info;
	if (!strcmp(name, leaf_of(within->path)))
		return true; /* the folder itself, or what only seems to be it */
	int n = snprintf(path, sizeof path, "%s/%s", within->path, name);
	if (n < 0 || (size_t)n >= sizeof path || !folder_can_require(name, strlen(name)))
		return false;
	if (!stat(path, &info))
		return S_ISDIR(info.st_mode);
	const struct watched_folder *folder = within->watch->folders;
	while (folder && strcmp(folder->path, path) != 0)
		folder = folder->next;
	return folder;
}

static void on_settled(uv_timer_t *timer);

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
	struct watched_folder *folder = (struct watched_folder *)event;
	struct watch *watch = folder->watch;
	bool moved = status < 0 || !name || (events & UV_RENAME && is_folder(folder, name));
	if (!moved && !is_script(watch, name))
		return;
	watch->moved = watch->moved || moved;
	uint64_t now_ms = uv_now(watch->loop);
	if (!uv_is_active((uv_handle_t *)&watch->settle))
		watch->began_ms = now_ms;
	if (watch->lost || now_ms - watch->began_ms < PATIENCE_MS)
		uv_timer_start(&watch->settle, on_settled, SETTLE_MS, 0);
}

/* ---- folders ---- */

static void on_closed(uv_handle_t *handle)
{
	free(handle);
}

static void forget(struct watched_folder *folder)
{
	while (folder) {
		struct watched_folder *next = folder->next;
		uv_close((uv_handle_t *)&folder->event, on_closed);
		folder = next;
	}
}

static int watch_folder(void *data, const char *name)
{
	struct watch *watch = data;
	char root[PATH_MAX];
	if (watch->count >= FOLDERS_MAX || !folder_of_script(watch->script, root, sizeof root))
		return UV_E2BIG;
	size_t size = strlen(root) + strlen(name) + 2;
	struct watched_folder *folder = calloc(1, sizeof *folder + size);
	if (!folder)
		return UV_ENOMEM;
	snprintf(folder->path, size, "%s%s%s", root, *name ? "/" : "", name);
	folder->watch = watch;
	uv_fs_event_init(watch->loop, &folder->event);
	int err = uv_fs_event_start(&folder->event, on_event, folder->path, 0);
	if (err) {
		uv_close((uv_handle_t *)&folder->event, on_closed);
		return err == UV_ENOENT ? 0 : err; /* it went just now */
	}
	folder->next = watch->folders;
	watch->folders = folder;
	watch->count++;
	return 0;
}

/* The new watches begin before the old ones end: for a folder that stays there is no moment without. */
static void watch_all(struct watch *watch)
{
	static const struct folder_visitor VISITOR = { .folder = watch_folder };
	char root[PATH_MAX];
	struct watched_folder *old = watch->folders;
	watch->folders = NULL;
	watch->count = 0;
	watch->moved = false;
	int err = UV_ENAMETOOLONG;
	if (folder_of_script(watch->script, root, sizeof root))
		err = folder_walk(root, &VISITOR, watch);
	forget(old);
	bool was_lost = watch->lost;
	watch->lost = !watch->count;
	if (err && !was_lost)
		log_write(LOG_WARN, "not all of the app's folder is watched", F_TEXT("script", watch->script),
			  F_INT("folders", watch->count), F_TEXT("error", uv_strerror(err)));
}

static void on_settled(uv_timer_t *timer)
{
	struct watch *watch = timer->data;
	bool was_lost = watch->lost;
	if (watch->moved || was_lost)
		watch_all(watch);
	if (watch->lost)
		uv_timer_start(timer, on_settled, RETRY_MS, 0);
	if (!watch->lost || !was_lost)
		watch->changed(watch->data);
}

/* ---- life ---- */

void watch_open(struct watch *watch, uv_loop_t *loop, const char *script, void (*changed)(void *data),
		void *data)
{
	*watch = (struct watch){ .loop = loop, .script = script, .changed = changed, .data = data };
	uv_timer_init(loop, &watch->settle);
	watch->settle.data = watch;
	watch_all(watch);
	if (watch->lost)
		return;
	log_write(LOG_INFO, "watching", F_TEXT("script", script), F_INT("folders", watch->count));
}

void watch_suspect(struct watch *watch)
{
	watch->began_ms = uv_now(watch->loop);
	uv_timer_start(&watch->settle, on_settled, SETTLE_MS, 0);
}

void watch_close(struct watch *watch)
{
	if (!watch->loop)
		return;
	uv_close((uv_handle_t *)&watch->settle, NULL);
	forget(watch->folders);
	watch->folders = NULL;
	watch->loop = NULL;
}

#include "server/watch.h"

#include "base/log.h"
#include "base/workdir.h"
#include "config/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	SETTLE_MS = 100,    /* an editor is done by then */
	PATIENCE_MS = 1000, /* ... and what never comes to rest is told all the same */
	RETRY_MS = 1000,    /* until a folder that was removed is there again */
	FOLDERS_MAX = 512,
};

#define CONTENTS (IN_ATTRIB | IN_MODIFY)
#define COMES_OR_GOES (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define GOES_ITSELF (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_Q_OVERFLOW)

struct watched_folder {
	int number; /* inotify's; of the folder, not of its name */
	struct watched_folder *next;
	char path[];
};

/* ---- what matters ---- */

static const char *watch_leaf_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static bool watch_is_script(const struct watch *watch, const char *name)
{
	size_t length = strlen(name);
	bool is_lua = length > 4 && !strcmp(name + length - 4, ".lua");
	return (is_lua && folder_can_require(name, length - 4)) ||
	       !strcmp(name, watch_leaf_of(watch->script));
}

/* Is it a folder with scripts, or was it one? */
static bool is_folder(const struct watch *watch, const struct watched_folder *within, const char *name)
{
	char path[PATH_MAX];
	struct stat info;
	int n = snprintf(path, sizeof path, "%s/%s", within->path, name);
	if (n < 0 || (size_t)n >= sizeof path || !folder_can_require(name, strlen(name)))
		return false;
	if (!stat(path, &info))
		return S_ISDIR(info.st_mode);
	const struct watched_folder *folder = watch->folders;
	while (folder && strcmp(folder->path, path) != 0)
		folder = folder->next;
	return folder;
}

static void on_settled(uv_timer_t *timer);

static void note_change(struct watch *watch, bool moved)
{
	watch->moved = watch->moved || moved;
	uint64_t now_ms = uv_now(watch->reactor->loop);
	if (!uv_is_active((uv_handle_t *)&watch->settle))
		watch->began_ms = now_ms;
	if (watch->lost || now_ms - watch->began_ms < PATIENCE_MS)
		uv_timer_start(&watch->settle, on_settled, SETTLE_MS, 0);
}

static struct watched_folder *watch_find(struct watched_folder *folder, int number)
{
	while (folder && folder->number != number)
		folder = folder->next;
	return folder;
}

static void note_event(struct watch *watch, const struct inotify_event *event)
{
	const struct watched_folder *folder = watch_find(watch->folders, event->wd);
	if (event->mask & GOES_ITSELF && (folder || event->mask & IN_Q_OVERFLOW)) {
		note_change(watch, true);
		return;
	}
	if (!folder || !event->len)
		return;
	bool moved = event->mask & COMES_OR_GOES && is_folder(watch, folder, event->name);
	if (moved || watch_is_script(watch, event->name))
		note_change(watch, moved);
}

static void on_events(struct watched *watched, unsigned events)
{
	struct watch *watch = watched->data;
	_Alignas(struct inotify_event) char room[4096];
	ssize_t n;
	(void)events;
	while ((n = read(watched->fd, room, sizeof room)) > 0) {
		const struct inotify_event *event;
		for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof *event + event->len)) {
			event = (const struct inotify_event *)(const void *)(room + at);
			note_event(watch, event);
		}
	}
}

/* ---- folders ---- */

/* Those that are still watched, by these or other names, have their numbers among the others. */
static void watch_forget(struct watch *watch, struct watched_folder *folder, struct watched_folder *others)
{
	while (folder) {
		struct watched_folder *next = folder->next;
		if (!watch_find(others, folder->number) && !watch_find(next, folder->number))
			inotify_rm_watch(watch->inotify.fd, folder->number);
		free(folder);
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
	folder->number = inotify_add_watch(watch->inotify.fd, folder->path,
					   CONTENTS | COMES_OR_GOES | IN_DELETE_SELF | IN_MOVE_SELF);
	if (folder->number < 0) {
		int err = -errno;
		free(folder);
		return err == UV_ENOENT ? 0 : err; /* it went just now */
	}
	folder->next = watch->folders;
	watch->folders = folder;
	watch->count++;
	return 0;
}

/* The kernel calls its own limits a full disk and too many open files. */
static const char *watch_explain(int err)
{
	if (err == UV_ENOSPC)
		return "the limit of watches is reached (fs.inotify.max_user_watches)";
	return err == UV_EMFILE ? "the limit of watchers or of open files is reached"
				  " (fs.inotify.max_user_instances, ulimit -n)"
				: uv_strerror(err);
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
	if (!workdir_follow() && *watch->script != '/')
		err = UV_ENOENT; /* where we are has another name by now, or none */
	else if (folder_of_script(watch->script, root, sizeof root))
		err = folder_walk(root, &VISITOR, watch);
	watch_forget(watch, old, watch->folders);
	bool was_lost = watch->lost;
	watch->lost = !watch->count;
	if (err && !was_lost)
		log_write(LOG_WARN, "not all of the app's folder is watched", F_TEXT("script", watch->script),
			  F_INT("folders", watch->count), F_TEXT("error", watch_explain(err)));
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

/* 0 or an error. */
static int open_inotify(struct watch *watch)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0)
		return -errno;
	watch->inotify.ready = on_events;
	watch->inotify.data = watch;
	int err = reactor_add(watch->reactor, &watch->inotify, fd, EPOLLIN);
	if (err)
		close(fd);
	return err;
}

void watch_open(struct watch *watch, struct reactor *reactor, const char *script, void (*changed)(void *data),
		void *data)
{
	*watch = (struct watch){ .reactor = reactor, .script = script, .changed = changed, .data = data };
	watch->inotify.fd = -1;
	uv_timer_init(reactor->loop, &watch->settle);
	watch->settle.data = watch;
	int err = open_inotify(watch);
	if (err) {
		log_write(LOG_ERROR, "the app's folder is not watched", F_TEXT("script", script),
			  F_TEXT("error", watch_explain(err)));
		return;
	}
	watch_all(watch);
	if (watch->lost)
		return;
	log_write(LOG_INFO, "watching", F_TEXT("script", script), F_INT("folders", watch->count));
}

void watch_suspect(struct watch *watch)
{
	watch->began_ms = uv_now(watch->reactor->loop);
	uv_timer_start(&watch->settle, on_settled, SETTLE_MS, 0);
}

void watch_close(struct watch *watch)
{
	if (!watch->reactor)
		return;
	uv_close((uv_handle_t *)&watch->settle, NULL);
	watch_forget(watch, watch->folders, NULL);
	int fd = watch->inotify.fd;
	reactor_remove(watch->reactor, &watch->inotify);
	if (fd >= 0)
		close(fd);
	watch->folders = NULL;
	watch->reactor = NULL;
}

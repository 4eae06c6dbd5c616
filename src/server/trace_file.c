#include "server/trace_file.h"

#include "base/limits.h"
#include "base/thread.h"
#include "record/create.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the thread ---- */

/*
 * What is half there is taken back, where that can be: not from a pipe, nor when the end of the server does not wait.
 */
static int trace_file_write_all(struct trace_file *file)
{
	for (size_t at = 0; at < file->n;) {
		ssize_t n = write(file->fd, file->bytes + at, file->n - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int err = n ? -errno : UV_EIO;
			int ignored = ftruncate(file->fd, file->whole);
			(void)ignored;
			return err;
		}
		at += (size_t)n;
	}
	file->whole += (int64_t)file->n;
	return 0;
}

/*
 * One thing at a time: what the main thread writes before it posts is read after that, and so on the way back, by
 * `is_done`.
 */
static void trace_file_run(void *data)
{
	struct trace_file *file = data;
	for (;;) {
		uv_sem_wait(&file->work);
		if (!file->bytes)
			return;
		file->err = trace_file_write_all(file);
		atomic_store_explicit(&file->is_done, true, memory_order_release);
		uv_async_send(&file->done);
	}
}

/* ---- the main thread ---- */

/* Some file systems tell only now that there was no room. The thread has nothing to do. */
static void trace_file_finish(struct trace_file *file, int err)
{
	uv_sem_post(&file->work);
	uv_thread_join(&file->thread);
	uv_sem_destroy(&file->work);
	uv_close((uv_handle_t *)&file->done, NULL);
	if (close(file->fd) && !err)
		err = -errno;
	file->fd = -1;
	file->stage = err ? TRACE_FILE_FAILED : TRACE_FILE_WHOLE;
	if (err)
		file->written(file->owner, err);
}

static void on_done(uv_async_t *done)
{
	struct trace_file *file = done->data;
	if (!atomic_exchange_explicit(&file->is_done, false, memory_order_acquire))
		return;
	free(file->bytes);
	file->bytes = NULL;
	if (file->err || file->is_over)
		trace_file_finish(file, file->err);
	else
		file->written(file->owner, 0);
}

bool trace_file_keep(void *data, char *bytes, size_t n)
{
	struct trace_file *file = data;
	if (file->stage != TRACE_FILE_OPEN) {
		free(bytes);
		return false;
	}
	file->n = n;
	file->bytes = bytes;
	uv_sem_post(&file->work);
	return true;
}

void trace_file_end(void *data)
{
	struct trace_file *file = data;
	file->is_over = true;
	if (file->stage == TRACE_FILE_OPEN && !file->bytes)
		trace_file_finish(file, 0);
}

/*
 * A disk that does not answer would hold up the end for ever: the thread and its bytes stay until the process has gone.
 */
void trace_file_abandon(struct trace_file *file)
{
	if (file->stage != TRACE_FILE_OPEN)
		return;
	file->stage = TRACE_FILE_FAILED;
	uv_close((uv_handle_t *)&file->done, NULL);
}

static int trace_file_start_thread(struct trace_file *file, uv_loop_t *loop)
{
	int err = uv_async_init(loop, &file->done, on_done);
	if (err)
		return err;
	file->done.data = file;
	err = uv_sem_init(&file->work, 0);
	if (!err && (err = thread_start(&file->thread, THREAD_BYTES, trace_file_run, file)))
		uv_sem_destroy(&file->work);
	if (err)
		uv_close((uv_handle_t *)&file->done, NULL);
	return err;
}

int trace_file_open(struct trace_file *file, uv_loop_t *loop, const char *path, bool force, char *why,
		    size_t size)
{
	file->fd = trace_create(path, force);
	if (file->fd < 0) {
		snprintf(why, size, "cannot record to %s: %s", path, trace_create_error(file->fd));
		return file->fd;
	}
	file->bytes = NULL;
	file->whole = 0;
	file->is_over = false;
	atomic_init(&file->is_done, false);
	int err = trace_file_start_thread(file, loop);
	if (err) {
		char problem[LIMITS_TEXT_BYTES];
		snprintf(why, size, "cannot record to %s: %s", path,
			 limits_explain(err, problem, sizeof problem));
		close(file->fd);
		return err;
	}
	file->stage = TRACE_FILE_OPEN;
	return 0;
}

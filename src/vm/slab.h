/*
 * The allocator of one Lua VM: size classes on aligned pages.
 *
 * Lua tells the size when it frees, so a block needs no header; a page is found
 * by masking the address. A block costs a pop and a push on its page's free
 * list. Pages that fall empty are reused by any class, and a surplus of them
 * goes back to the system, so a VM shrinks after a burst. Strings and tables are
 * nearly all of what a frame costs, so this is on the hot path.
 *
 * Blocks over SLAB_SMALL_BYTES come from malloc.
 *
 * Threads: a slab belongs to the thread that runs its VM.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
	SLAB_SMALL_BYTES = 16384,
	SLAB_PAGE_BYTES = 65536,
	SLAB_CHUNK_BYTES = 4 << 20, /* address space taken from the system at a time */
	SLAB_HUGE_PAGE_BYTES = 2 << 20,
	SLAB_SPAN_BYTES = SLAB_CHUNK_BYTES + SLAB_HUGE_PAGE_BYTES, /* what taking it may need for a moment */
	SLAB_CLASSES = 60,
	SLAB_KEEP_PAGES = 64, /* empty pages kept resident for the next need */
};

struct slab_page;
struct slab_chunk;

struct slab {
	struct slab_page *partial[SLAB_CLASSES]; /* pages with room, in use first */
	struct slab_page *empty;                 /* pages of no class, still resident */
	unsigned empty_count;
	struct slab_chunk *chunks;
	size_t page_bytes;  /* in pages that belong to a class */
	size_t large_bytes; /* in blocks from malloc */
};

void slab_init(struct slab *slab);

/* Gives everything back, whatever is still allocated. */
void slab_deinit(struct slab *slab);

/* Gives the pages kept for the next need back to the system. */
void slab_trim(struct slab *slab);

/* A lua_Alloc; `slab` is a struct slab *. NULL when the system has no memory. */
void *slab_alloc(void *slab, void *block, size_t old_bytes, size_t new_bytes);

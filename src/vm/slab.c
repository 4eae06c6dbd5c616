#include "vm/slab.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* A free block holds the link to the next one. */
struct slab_block {
	struct slab_block *next;
};

/* The head of a page; its blocks follow. */
struct slab_page {
	struct slab_block *free;
	uint32_t used; /* blocks handed out */
	uint32_t block_bytes;
	uint32_t fresh; /* offset of the first block never handed out */
	uint16_t class;
	bool listed; /* in its class's list of pages with room */
	struct slab_page *next, *prev;
	struct slab_chunk *chunk;
};

struct slab_chunk {
	struct slab_chunk *next, *prev;
	uint8_t *base;
	uint32_t given;             /* pages that left `fresh` */
	uint32_t in_use;            /* pages that belong to a class or to slab->empty */
	struct slab_page *returned; /* pages whose memory went back to the system */
};

enum { PAGES_PER_CHUNK = SLAB_CHUNK_BYTES / SLAB_PAGE_BYTES };

/*
 * ---- size classes: steps of 8 to 256, of 32 to 512, of 128 to 1024; then four to a doubling ----
 */

static unsigned large_class_of(size_t bytes)
{
	if (bytes <= 512)
		return (unsigned)(32 + (bytes - 257) / 32);
	if (bytes <= 1024)
		return (unsigned)(40 + (bytes - 513) / 128);
	unsigned doubling =
	    63u - (unsigned)__builtin_clzll(bytes - 1); /* 2^doubling < bytes <= 2^(doubling + 1) */
	return 44 + (doubling - 10) * 4 + (unsigned)((bytes - 1 - ((size_t)1 << doubling)) >> (doubling - 2));
}

static inline unsigned class_of(size_t bytes)
{
	return LIKELY(bytes <= 256) ? (unsigned)(bytes + 7) / 8 - 1 : large_class_of(bytes);
}

static size_t class_bytes(unsigned class)
{
	if (class < 32)
		return (class + 1) * 8;
	if (class < 40)
		return 256 + (class - 31) * 32;
	if (class < 44)
		return 512 + (class - 39) * 128;
	size_t base = (size_t)1024 << ((class - 44) / 4);
	return base + base / 4 * ((class - 44) % 4 + 1);
}

/* ---- chunks: aligned address space, cut into pages ---- */

/*
 * Much state is scattered over many pages of the system's, and the processor does not keep the places of all: a large
 * heap has huge ones. A small one has not, for they would be resident as a whole.
 */
static bool is_worth_huge_pages(const struct slab *slab)
{
	enum { LARGE_BYTES = 64 << 20 };
	return slab->page_bytes >= LARGE_BYTES;
}

static uint8_t *map_aligned(const struct slab *slab)
{
	bool is_large = is_worth_huge_pages(slab);
	size_t align = is_large ? SLAB_HUGE_PAGE_BYTES : SLAB_PAGE_BYTES, span = SLAB_CHUNK_BYTES + align;
	uint8_t *raw = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (raw == MAP_FAILED)
		return NULL;
	uintptr_t mask = align - 1;
	uint8_t *base = (uint8_t *)(((uintptr_t)raw + mask) & ~mask);
	size_t before = (size_t)(base - raw), after = align - before;
	if (before)
		munmap(raw, before);
	if (after)
		munmap(base + SLAB_CHUNK_BYTES, after);
	if (is_large)
		madvise(base, SLAB_CHUNK_BYTES, MADV_HUGEPAGE);
	return base;
}

static struct slab_chunk *chunk_new(struct slab *slab)
{
	struct slab_chunk *chunk = calloc(1, sizeof *chunk);
	if (!chunk)
		return NULL;
	chunk->base = map_aligned(slab);
	if (!chunk->base) {
		free(chunk);
		return NULL;
	}
	chunk->next = slab->chunks;
	if (chunk->next)
		chunk->next->prev = chunk;
	slab->chunks = chunk;
	return chunk;
}

static void chunk_free(struct slab *slab, struct slab_chunk *chunk)
{
	assert(chunk->prev ? chunk->prev->next == chunk : slab->chunks == chunk);
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		slab->chunks = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
	munmap(chunk->base, SLAB_CHUNK_BYTES);
	free(chunk);
}

/* ---- pages ---- */

static struct slab_page *page_take(struct slab *slab)
{
	struct slab_page *page = slab->empty;
	if (page) {
		slab->empty = page->next;
		slab->empty_count--;
		return page;
	}
	struct slab_chunk *chunk = slab->chunks;
	while (chunk && !chunk->returned && chunk->given == PAGES_PER_CHUNK)
		chunk = chunk->next;
	if (!chunk && !(chunk = chunk_new(slab)))
		return NULL;
	page = chunk->returned;
	if (page)
		chunk->returned = page->next;
	else
		page = (struct slab_page *)(void *)(chunk->base + (size_t)chunk->given++ * SLAB_PAGE_BYTES);
	page->chunk = chunk;
	chunk->in_use++;
	return page;
}

/* The first words of a returned page stay resident: they link it. */
static void page_return(struct slab *slab, struct slab_page *page)
{
	struct slab_chunk *chunk = page->chunk;
	if (--chunk->in_use == 0) {
		chunk_free(slab, chunk);
		return;
	}
	enum { HEAD_BYTES = 4096 };
	madvise((uint8_t *)page + HEAD_BYTES, SLAB_PAGE_BYTES - HEAD_BYTES, MADV_DONTNEED);
	page->next = chunk->returned;
	chunk->returned = page;
}

static void list_page(struct slab *slab, struct slab_page *page)
{
	struct slab_page **head = &slab->partial[page->class];
	page->prev = NULL;
	page->next = *head;
	if (*head)
		(*head)->prev = page;
	*head = page;
	page->listed = true;
}

static void unlist_page(struct slab *slab, struct slab_page *page)
{
	if (page->prev)
		page->prev->next = page->next;
	else
		slab->partial[page->class] = page->next;
	if (page->next)
		page->next->prev = page->prev;
	page->listed = false;
}

static struct slab_page *page_new(struct slab *slab, unsigned class)
{
	struct slab_page *page = page_take(slab);
	if (!page)
		return NULL;
	page->free = NULL;
	page->used = 0;
	page->block_bytes = (uint32_t)class_bytes(class);
	page->fresh = (sizeof *page + 63) & ~63u; /* a string's head lies in as few lines as may be */
	page->class = (uint16_t) class;
	slab->page_bytes += SLAB_PAGE_BYTES;
	list_page(slab, page);
	return page;
}

/* ---- blocks ---- */

static __attribute__((noinline)) void *alloc_slow(struct slab *slab, unsigned class)
{
	for (;;) {
		struct slab_page *page = slab->partial[class];
		if (!page && !(page = page_new(slab, class)))
			return NULL;
		struct slab_block *block = page->free;
		if (block) {
			page->free = block->next;
		} else if (page->fresh + page->block_bytes <= SLAB_PAGE_BYTES) {
			block = (struct slab_block *)(void *)((uint8_t *)page + page->fresh);
			page->fresh += page->block_bytes;
		} else {
			unlist_page(slab, page);
			continue;
		}
		page->used++;
		return block;
	}
}

static inline void *small_alloc(struct slab *slab, size_t bytes)
{
	unsigned class = class_of(bytes);
	struct slab_page *page = slab->partial[class];
	if (LIKELY(page && page->free)) {
		struct slab_block *block = page->free;
		page->free = block->next;
		page->used++;
		return block;
	}
	return alloc_slow(slab, class);
}

static __attribute__((noinline)) void free_slow(struct slab *slab, struct slab_page *page)
{
	if (!page->listed)
		list_page(slab, page);
	if (page->used)
		return;
	/* An empty page is of use to every class; the last one of its own class stays,
	 * or a VM that wavers around one block would take and give it all the time. */
	if (slab->partial[page->class] == page && !page->next)
		return;
	unlist_page(slab, page);
	slab->page_bytes -= SLAB_PAGE_BYTES;
	if (slab->empty_count == SLAB_KEEP_PAGES) {
		page_return(slab, page);
		return;
	}
	page->next = slab->empty;
	slab->empty = page;
	slab->empty_count++;
}

static inline void small_free(struct slab *slab, void *ptr)
{
	struct slab_page *page = (struct slab_page *)((uintptr_t)ptr & ~(uintptr_t)(SLAB_PAGE_BYTES - 1));
	struct slab_block *block = ptr;
	block->next = page->free;
	page->free = block;
	page->used--;
	if (!LIKELY(page->used && page->listed))
		free_slow(slab, page);
}

static inline void *any_alloc(struct slab *slab, size_t bytes)
{
	if (LIKELY(bytes <= SLAB_SMALL_BYTES))
		return small_alloc(slab, bytes);
	void *block = malloc(bytes);
	if (block)
		slab->large_bytes += bytes;
	return block;
}

static inline void any_free(struct slab *slab, void *block, size_t bytes)
{
	if (LIKELY(bytes <= SLAB_SMALL_BYTES)) {
		small_free(slab, block);
		return;
	}
	slab->large_bytes -= bytes;
	free(block);
}

static __attribute__((noinline)) void *any_realloc(struct slab *slab, void *block, size_t old_bytes,
						   size_t new_bytes)
{
	bool both_small = old_bytes <= SLAB_SMALL_BYTES && new_bytes <= SLAB_SMALL_BYTES;
	if (both_small && class_of(old_bytes) == class_of(new_bytes))
		return block;
	if (old_bytes > SLAB_SMALL_BYTES && new_bytes > SLAB_SMALL_BYTES) {
		void *moved = realloc(block, new_bytes);
		if (moved)
			slab->large_bytes += new_bytes - old_bytes;
		return moved;
	}
	void *moved = any_alloc(slab, new_bytes);
	if (!moved)
		return NULL;
	memcpy(moved, block, old_bytes < new_bytes ? old_bytes : new_bytes);
	any_free(slab, block, old_bytes);
	return moved;
}

void *slab_alloc(void *data, void *block, size_t old_bytes, size_t new_bytes)
{
	struct slab *slab = data;
	if (!block)
		return new_bytes ? any_alloc(slab, new_bytes) : NULL;
	if (new_bytes)
		return any_realloc(slab, block, old_bytes, new_bytes);
	any_free(slab, block, old_bytes);
	return NULL;
}

void slab_trim(struct slab *slab)
{
	while (slab->empty) {
		struct slab_page *page = slab->empty;
		slab->empty = page->next;
		slab->empty_count--;
		page_return(slab, page);
	}
}

void slab_init(struct slab *slab)
{
	*slab = (struct slab){ 0 };
}

void slab_deinit(struct slab *slab)
{
	for (struct slab_chunk *next, *chunk = slab->chunks; chunk; chunk = next) {
		next = chunk->next;
		munmap(chunk->base, SLAB_CHUNK_BYTES);
		free(chunk);
	}
	slab_init(slab);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * A profile as a picture.
 *
 * Design: a mark that would cover no new pixel is left out, so that the picture's size depends on its area and not on
 * the number of accesses. Coordinates are whole numbers of tenths, free of the locale.
 */
#include "prefetch/profile.h"

#include <stdlib.h>

#include "base/cleanup.h"

#define PLOT_LEFT 240
#define PLOT_TOP 48
#define PLOT_WIDTH 960
#define PLOT_HEIGHT_MIN 420
#define LANE_MIN 3
#define LANES_MAX 400
#define LABEL_HEIGHT 11
#define TENTHS 10

struct lane {
	unsigned top, height; /* pixels below the plot's top */
};

struct picture {
	const struct profile *p;
	struct buf *out;
	struct lane lane[LANES_MAX];
	unsigned nr_lanes, height;
	uint32_t duration_ms;
	uint64_t *drawn; /* one bit a pixel */
};

static bool is_text_byte(unsigned char c)
{
	return c >= 0x20 && c < 0x7f;
}

/* Keys come from strangers: only printable ASCII gets through, escaped. */
static int add_text(struct buf *out, const char *s, size_t max)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && s[i] && i < max; i++) {
		switch (s[i]) {
		case '&':
			rc = buf_add_str(out, "&amp;");
			break;
		case '<':
			rc = buf_add_str(out, "&lt;");
			break;
		default:
			rc = buf_add(out, is_text_byte((unsigned char)s[i]) ? &s[i] : "?", 1);
		}
	}
	return rc;
}

/* Each file has its least height, and shares the rest by size. */
static void place_lanes(struct picture *pic)
{
	const struct profile *p = pic->p;
	uint64_t all = 0;
	unsigned rest, top = 0;

	pic->nr_lanes = min_of(p->nr_files, (uint32_t)LANES_MAX);
	for (unsigned i = 0; i < pic->nr_lanes; i++)
		all += p->file[i].size_bytes >> 10;
	pic->height = max_of((unsigned)PLOT_HEIGHT_MIN, pic->nr_lanes * (LANE_MIN + 1));
	rest = pic->height - pic->nr_lanes * LANE_MIN;
	for (unsigned i = 0; i < pic->nr_lanes; i++) {
		uint64_t share = all ? (p->file[i].size_bytes >> 10) * rest / all : 0;

		pic->lane[i] = (struct lane){ .top = top, .height = LANE_MIN + (unsigned)share };
		top += pic->lane[i].height;
	}
}

static int add_head(const struct picture *pic, size_t nr_fetched)
{
	const struct profile *p = pic->p;
	struct profile_summary s;
	int rc;

	profile_summarize(p, &s);
	rc = buf_addf(pic->out,
		      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" font-family=\"sans-serif\" "
		      "font-size=\"10\">\n<style>.f{fill:#ccc}",
		      PLOT_LEFT + PLOT_WIDTH + 20, PLOT_TOP + pic->height + 40);
	for (uint32_t r = 0; rc == 0 && r < p->nr_ranks; r++)
		rc = buf_addf(pic->out, ".r%u{fill:hsl(%u,75%%,42%%)}", r, (unsigned)(r * 137 + 210) % 360);
	if (rc == 0)
		rc = buf_addf(pic->out,
			      "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
			      "<text x=\"%d\" y=\"20\" font-size=\"13\">%llu MiB of %llu MiB in %u files, "
			      "%u readers, %u loads%s</text>\n",
			      PLOT_LEFT, (unsigned long long)(s.read_bytes >> 20),
			      (unsigned long long)(s.files_bytes >> 20), p->nr_files, p->nr_ranks, p->nr_loads,
			      nr_fetched ? "; grey: fetched" : "");
	if (rc == 0 && p->nr_files > pic->nr_lanes)
		rc = buf_addf(pic->out, "<text x=\"%d\" y=\"36\">%u more files are not shown</text>\n", PLOT_LEFT,
			      p->nr_files - pic->nr_lanes);
	return rc;
}

static int add_frame(const struct picture *pic)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < pic->nr_lanes; i++) {
		const struct lane *l = &pic->lane[i];

		rc = buf_addf(pic->out, "<path d=\"M%d %uh%d\" stroke=\"#eee\"/>\n", PLOT_LEFT, PLOT_TOP + l->top,
			      PLOT_WIDTH);
		if (rc || l->height < LABEL_HEIGHT)
			continue;
		rc = buf_addf(pic->out, "<text x=\"4\" y=\"%u\">", PLOT_TOP + l->top + l->height / 2 + 4);
		if (rc == 0)
			rc = add_text(pic->out, pic->p->file[i].key, 40);
		if (rc == 0)
			rc = buf_add_str(pic->out, "</text>\n");
	}
	for (unsigned i = 0; rc == 0 && i <= 4; i++)
		rc = buf_addf(pic->out, "<text x=\"%u\" y=\"%u\" text-anchor=\"middle\">%llu ms</text>\n",
			      PLOT_LEFT + PLOT_WIDTH * i / 4, PLOT_TOP + pic->height + 16,
			      (unsigned long long)pic->duration_ms * i / 4);
	return rc;
}

/* Marks the pixels of a mark one pixel wide; false when all were marked. */
static bool draw(struct picture *pic, unsigned x, unsigned top, unsigned bottom)
{
	bool any = false;

	for (unsigned y = top / TENTHS; y <= (bottom - 1) / TENTHS; y++) {
		size_t bit = (size_t)y * PLOT_WIDTH + x;
		uint64_t mask = (uint64_t)1 << bit % 64;

		any |= !(pic->drawn[bit / 64] & mask);
		pic->drawn[bit / 64] |= mask;
	}
	return any;
}

/* <len> may reach past the file's end; <rank> below 0 = fetched. */
static int add_mark(struct picture *pic, uint32_t file, uint64_t offset, uint64_t len, uint32_t time_ms, int rank)
{
	uint64_t size, end;
	unsigned x, top, bottom, tenths;
	const struct lane *l;
	int rc;

	if (file >= pic->nr_lanes)
		return 0;
	l = &pic->lane[file];
	size = pic->p->file[file].size_bytes;
	if (!len || offset >= size)
		return 0;
	end = len > size - offset ? size : offset + len;
	tenths = l->height * TENTHS;
	x = (unsigned)((uint64_t)min_of(time_ms, pic->duration_ms) * (PLOT_WIDTH - 1) / max_of(pic->duration_ms, 1u));
	top = (unsigned)((unsigned __int128)offset * tenths / size);
	bottom = (unsigned)((unsigned __int128)end * tenths / size);
	bottom = max_of(bottom, top + 1);
	top += l->top * TENTHS;
	bottom += l->top * TENTHS;
	if (!draw(pic, x, top, bottom))
		return 0;
	bottom = max_of(bottom, top + TENTHS / 2);
	rc = rank < 0 ? buf_add_str(pic->out, "<rect class=\"f\"") : buf_addf(pic->out, "<rect class=\"r%d\"", rank);
	return rc < 0 ? rc
		      : buf_addf(pic->out, " x=\"%u\" y=\"%u.%u\" width=\"2\" height=\"%u.%u\"/>\n", PLOT_LEFT + x,
				 PLOT_TOP + top / TENTHS, top % TENTHS, (bottom - top) / TENTHS,
				 (bottom - top) % TENTHS);
}

static int add_marks(struct picture *pic, const struct profile_range *fetched, size_t nr_fetched)
{
	const struct profile *p = pic->p;
	size_t words = ((size_t)pic->height * PLOT_WIDTH + 63) / 64;
	_cleanup_free_ uint64_t *fetched_map = calloc(words, sizeof(*fetched_map));
	_cleanup_free_ uint64_t *access_map = calloc(words, sizeof(*access_map));
	int rc = 0;

	if (!fetched_map || !access_map)
		return -ENOMEM;
	pic->drawn = fetched_map;
	for (size_t i = 0; rc == 0 && i < nr_fetched; i++)
		rc = add_mark(pic, fetched[i].file, fetched[i].offset, fetched[i].len, fetched[i].time_ms, -1);
	pic->drawn = access_map;
	for (uint32_t i = 0; rc == 0 && i < p->nr_accesses; i++) {
		const struct profile_access *a = &p->access[i];

		rc = add_mark(pic, a->file, (uint64_t)a->block * PROFILE_BLOCK_BYTES,
			      (uint64_t)a->nr_blocks * PROFILE_BLOCK_BYTES, a->time_ms, a->rank);
	}
	return rc;
}

int profile_svg(const struct profile *p, const struct profile_range *fetched, size_t nr_fetched, struct buf *out)
{
	_cleanup_free_ struct picture *pic = calloc(1, sizeof(*pic));
	int rc;

	if (!pic)
		return -ENOMEM;
	pic->p = p;
	pic->out = out;
	pic->duration_ms = p->nr_accesses ? p->access[p->nr_accesses - 1].time_ms : 0;
	for (size_t i = 0; i < nr_fetched; i++)
		pic->duration_ms = max_of(pic->duration_ms, fetched[i].time_ms);
	place_lanes(pic);
	rc = add_head(pic, nr_fetched);
	if (rc == 0)
		rc = add_frame(pic);
	if (rc == 0)
		rc = add_marks(pic, fetched, nr_fetched);
	return rc < 0 ? rc : buf_add_str(out, "</svg>\n");
}

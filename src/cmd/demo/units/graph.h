/* Directed graphs with weights. */
#ifndef DEMO_GRAPH_H
#define DEMO_GRAPH_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GRAPH_NODES_MAX = 64, GRAPH_EDGES_MAX = 512 };

typedef struct {
    int from, to, weight, next; /* next: of the same node, or -1 */
} graph_edge;

typedef struct {
    int nodes, edges;
    int first[GRAPH_NODES_MAX]; /* edge of each node, or -1 */
    graph_edge edge[GRAPH_EDGES_MAX];
} graph;

void graph_init(graph *g, int nodes);
bool graph_add(graph *g, int from, int to, int weight);
/* The length of the shortest path to each node, -1 where there is none. */
void graph_distances(const graph *g, int from, int *distances);
/* Nodes so that each comes before those it leads to; false if there is a circle. */
bool graph_order(const graph *g, int *order);
/* The number of parts within which every node leads to every other. */
int graph_components(const graph *g, int *component);

#ifdef __cplusplus
}
#endif

#endif

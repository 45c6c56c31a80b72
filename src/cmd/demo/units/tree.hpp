// A treap: a search tree that chance keeps flat, with iterators and the rank of each item.
#ifndef DEMO_TREE_HPP
#define DEMO_TREE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace demo {

template <typename T, typename Less = std::less<T>>
class Tree {
    struct Node {
        T item;
        std::uint32_t priority;
        std::size_t size = 1;
        std::unique_ptr<Node> left, right;
    };
    using Link = std::unique_ptr<Node>;

public:
    class Iterator {
    public:
        using iterator_category = std::forward_iterator_tag;
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using pointer = const T *;
        using reference = const T &;

        Iterator() = default;
        explicit Iterator(const Node *root) { descend(root); }
        reference operator*() const { return path_.back()->item; }
        pointer operator->() const { return &path_.back()->item; }
        Iterator &operator++()
        {
            const Node *node = path_.back();
            path_.pop_back();
            descend(node->right.get());
            return *this;
        }
        Iterator operator++(int)
        {
            Iterator before = *this;
            ++*this;
            return before;
        }
        bool operator==(const Iterator &other) const { return path_ == other.path_; }
        bool operator!=(const Iterator &other) const { return !(*this == other); }

    private:
        void descend(const Node *node)
        {
            for (; node != nullptr; node = node->left.get())
                path_.push_back(node);
        }
        std::vector<const Node *> path_; // to the nodes that are still to come
    };

    Iterator begin() const { return Iterator(root_.get()); }
    Iterator end() const { return {}; }
    std::size_t size() const { return size_of(root_); }

    bool insert(T item)
    {
        if (contains(item))
            return false;
        auto [less, more] = split(std::move(root_), item);
        random_ = random_ * 1664525u + 1013904223u;
        auto node = Link(new Node{std::move(item), random_, 1, nullptr, nullptr});
        root_ = join(join(std::move(less), std::move(node)), std::move(more));
        return true;
    }

    bool contains(const T &item) const
    {
        const std::size_t place = rank(item);
        return place < size() && !less_(item, at(place));
    }

    // How many items are less.
    std::size_t rank(const T &item) const
    {
        std::size_t out = 0;
        for (const Node *node = root_.get(); node != nullptr;) {
            const bool right = less_(node->item, item);
            out += right ? size_of(node->left) + 1 : 0;
            node = (right ? node->right : node->left).get();
        }
        return out;
    }

    const T &at(std::size_t place) const
    {
        const Node *node = root_.get();
        for (;;) {
            const std::size_t left = size_of(node->left);
            if (place == left)
                break;
            node = (place < left ? node->left : node->right).get();
            place -= place < left ? 0 : left + 1;
        }
        return node->item;
    }

private:
    static std::size_t size_of(const Link &link) { return link ? link->size : 0; }
    static Link sized(Link link)
    {
        link->size = 1 + size_of(link->left) + size_of(link->right);
        return link;
    }

    std::pair<Link, Link> split(Link link, const T &item)
    {
        if (!link)
            return {};
        if (less_(link->item, item)) {
            auto [less, more] = split(std::move(link->right), item);
            link->right = std::move(less);
            return {sized(std::move(link)), std::move(more)};
        }
        auto [less, more] = split(std::move(link->left), item);
        link->left = std::move(more);
        return {std::move(less), sized(std::move(link))};
    }

    Link join(Link a, Link b)
    {
        if (!a || !b)
            return a ? std::move(a) : std::move(b);
        if (a->priority > b->priority) {
            a->right = join(std::move(a->right), std::move(b));
            return sized(std::move(a));
        }
        b->left = join(std::move(a), std::move(b->left));
        return sized(std::move(b));
    }

    Link root_;
    Less less_;
    std::uint32_t random_ = 1;
};

} // namespace demo

#endif

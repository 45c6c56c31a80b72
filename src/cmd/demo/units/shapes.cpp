// Shapes behind one interface, read from text by a table of makers.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr double pi = 3.14159265358979323846;

class Shape {
public:
    virtual ~Shape() = default;
    virtual double area() const = 0;
    virtual double around() const = 0;
    virtual std::string name() const = 0;
    double roundness() const { return 4 * pi * area() / (around() * around()); }
};

class Circle final : public Shape {
public:
    explicit Circle(double radius) : radius_(radius) {}
    double area() const override { return pi * radius_ * radius_; }
    double around() const override { return 2 * pi * radius_; }
    std::string name() const override { return "circle"; }

private:
    double radius_;
};

class Polygon : public Shape {
public:
    using Point = std::pair<double, double>;
    explicit Polygon(std::vector<Point> points) : points_(std::move(points)) {}

    double area() const override
    {
        return std::abs(over_edges([](Point a, Point b) { return a.first * b.second - b.first * a.second; })) / 2;
    }
    double around() const override
    {
        return over_edges([](Point a, Point b) { return std::hypot(b.first - a.first, b.second - a.second); });
    }
    std::string name() const override { return std::to_string(points_.size()) + " corners"; }

private:
    template <typename Measure>
    double over_edges(Measure measure) const
    {
        double sum = 0;
        for (std::size_t i = 0; i < points_.size(); ++i)
            sum += measure(points_[i], points_[(i + 1) % points_.size()]);
        return sum;
    }

    std::vector<Point> points_;
};

class Rectangle final : public Polygon {
public:
    Rectangle(double width, double height) : Polygon({{0, 0}, {width, 0}, {width, height}, {0, height}}), square_(!(width < height || height < width)) {}
    std::string name() const override { return square_ ? "square" : "rectangle"; }

private:
    bool square_;
};

using Shapes = std::vector<std::unique_ptr<const Shape>>;

std::unique_ptr<const Shape> read_shape(const std::string &line)
{
    using Maker = std::function<std::unique_ptr<const Shape>(const std::vector<double> &)>;
    static const std::map<std::string, Maker> makers = {
        {"circle", [](const auto &n) { return std::make_unique<Circle>(n.at(0)); }},
        {"rectangle", [](const auto &n) { return std::make_unique<Rectangle>(n.at(0), n.at(1)); }},
        {"polygon",
         [](const auto &n) {
             std::vector<Polygon::Point> points;
             for (std::size_t i = 0; i < n.size(); i += 2)
                 points.emplace_back(n[i], n.at(i + 1));
             return std::make_unique<Polygon>(std::move(points));
         }},
    };
    std::istringstream in(line);
    std::string kind;
    in >> kind;
    std::vector<double> numbers;
    for (double number = 0; in >> number;)
        numbers.push_back(number);
    return makers.at(kind)(numbers);
}

bool near(double a, double b)
{
    return std::abs(a - b) < 1e-9;
}

} // namespace

extern "C" int demo_check_shapes(void)
{
    Shapes shapes;
    for (const char *line : {"circle 1", "rectangle 2 3", "polygon 0 0 4 0 0 3", "rectangle 2 2"})
        shapes.push_back(read_shape(line));
    const auto add = [](double sum, const auto &shape) { return sum + shape->area(); };
    CHECK(near(std::accumulate(shapes.begin(), shapes.end(), 0.0, add), pi + 6 + 6 + 4));
    CHECK(near(shapes[2]->around(), 12) && near(shapes[0]->roundness(), 1));
    std::sort(shapes.begin(), shapes.end(), [](const auto &a, const auto &b) { return a->roundness() > b->roundness(); });
    CHECK(shapes[0]->name() == "circle" && shapes[1]->name() == "square" && shapes[3]->name() == "3 corners");
    for (const char *line : {"blob 1", "circle", "polygon 1"}) {
        try {
            read_shape(line);
            return __LINE__;
        } catch (const std::out_of_range &) {
        }
    }
    return 0;
}

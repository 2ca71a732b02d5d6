"""The HTML of an evaluation page, for jinja2. It is Python so that it travels with the package as its code does."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{{ card.name }}: evaluation</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
p.sub, figcaption { color: #5a636e; }
table { border-collapse: collapse; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #e2e6ea;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #1b1f24; }
table.words th, table.words td { text-align: left; }
.wide { overflow-x: auto; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin-right: 0.45em;
  border: 1px solid #00000055; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; }
.legend span { overflow-wrap: anywhere; }
img { max-width: 100%; }
figure { margin: 0 0 1.2rem; }
pre, dd { overflow-wrap: anywhere; white-space: pre-wrap; }
pre { background: #f2f4f6; padding: 0.7rem 1rem; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.2rem; }
dt { color: #5a636e; } dd { margin: 0; }
</style>
</head>
<body>
{%- macro percent(value) %}{{ "–" if value is none else "%.1f" | format(100 * value) }}{% endmacro %}
{%- macro named(name) %}<i class="swatch" style="background: {{ colors[name] }}"></i>{{ name }}{% endmacro %}
<h1>{{ card.name }}</h1>
<p class="sub">{{ source }}, measured {{ time }}</p>

<h2>Average precision, %</h2>
<table>
<thead><tr><th></th><th>AP</th><th>AP50</th><th>AP75</th><th>small</th><th>medium</th><th>large</th></tr></thead>
{%- for title, figures in figures_of %}
<tr><td>{{ title }}</td>
{%- for key in ("ap", "ap50", "ap75", "small", "medium", "large") %}<td>{{ percent(figures[key]) }}</td>{% endfor -%}
</tr>
{%- endfor %}
</table>
<p class="sub">COCO's figures (pycocotools), the mean over the classes with instances, at most {{ most_detections }}
detections an image and class. {% if metrics.box_unlimited -%}
An image shows up to {{ metrics.most_instances }} instances of a class: the rows of all detections leave out that limit.
{% endif -%}
AP: mean over IoU 0.50 to 0.95. Small: under 32 × 32 px; large: over 96 × 96 px.
A dash: nothing to find.</p>

<h2>By class, %</h2>
<div class="wide"><table>
<thead><tr><th>class</th><th>instances</th><th>box AP</th><th>AP50</th><th>AP75</th><th>mask AP</th><th>AP50</th>
<th>AP75</th><th>best score</th><th>default score</th></tr></thead>
{%- for name, figures in metrics.by_class.items() %}
<tr><td>{{ named(name) }}</td><td>{{ figures.instances }}</td>
{%- for key in ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75") -%}
<td>{{ percent(figures[key]) }}</td>{% endfor -%}
<td>{{ "–" if figures.best_score is none else "%.2f" | format(figures.best_score) }}</td>
<td>{{ "%.2f" | format(default_scores[name]) }}</td></tr>
{%- endfor %}
</table></div>
<p class="sub">Best score: where F1 at IoU 0.5 is largest on these images. Default score: what the model's card says,
under which a result leaves an instance out.</p>

<h2>Precision and recall at IoU 0.5</h2>
{%- if curves %}
<figure><img alt="Precision by recall, of boxes and of masks" src="data:image/svg+xml;base64,{{ curves }}">
<figcaption class="legend">{% for name in drawn_classes %}<span>{{ named(name) }}</span>{% endfor %}
{%- if drawn_classes | length > 1 %}<span><i class="swatch" style="background: white"></i>mean of the classes</span>
{%- endif %}</figcaption></figure>
{%- else %}
<p>No class has an instance to find.</p>
{%- endif %}

{%- for group in groups %}
<h2>{{ group.title }}</h2>
<p class="sub">{{ group.chosen }}</p>
{%- for picture in group.pictures %}
<figure><img alt="truth and predictions" src="data:image/jpeg;base64,{{ picture.data }}">
<figcaption>{{ picture.name }}: F1 {{ "%.2f" | format(picture.f1) }}; {{ picture.right }} right,
{{ picture.wrong }} wrong, {{ picture.missed }} missed</figcaption></figure>
{%- endfor %}
{%- endfor %}

<h2>The model</h2>
<dl>
{%- for name, value in model_facts %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{%- endfor %}
</dl>
{%- if card.training_data %}
<table class="words">
<thead><tr><th>trained on</th><th>licence</th></tr></thead>
{%- for data in card.training_data %}
<tr>
<td>{{ data.get("name", "-") }}{% if "via" in data %}, by way of {{ data.via }}{% endif %}</td>
<td>{{ data.get("licence", "-") }}</td>
</tr>
{%- endfor %}
</table>
{%- endif %}

<h2>Made by</h2>
<pre>{{ command }}</pre>
</body>
</html>
"""

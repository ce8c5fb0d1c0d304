"""Names of people, places, streets and companies from the lists of the PyPI package Faker."""

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOCALES = {
    "en": ("en_US", "en_GB"),
    "es": ("es_ES", "es_ES"),
    "fr": ("fr_FR", "fr_FR"),
    "pt": ("pt_BR", "pt_BR"),
    "de": ("de_DE", "de_DE"),
    "it": ("it_IT", "it_IT"),
}
_CITY_LISTS = ("cities", "cities_de_DE", "states", "counties", "estados", "departments", "distritos")
_CITIES = {
    "en": [
        "London",
        "Boston",
        "Chicago",
        "Dublin",
        "Denver",
        "Austin",
        "Leeds",
        "Bristol",
        "Seattle",
        "Portland",
        "Glasgow",
        "Toronto",
        "Sydney",
        "Houston",
        "Dallas",
        "Phoenix",
        "Liverpool",
        "Oxford",
        "Cambridge",
        "Manchester",
        "Brighton",
        "Newcastle",
        "Cardiff",
        "Edinburgh",
        "Atlanta",
        "Memphis",
        "Nashville",
        "Baltimore",
        "Orlando",
        "Melbourne",
        "Auckland",
        "Vancouver",
        "Ottawa",
        "Perth",
        "Plymouth",
        "Norwich",
        "Lincoln",
        "Bath",
        "York",
        "Exeter",
    ],
    "fr": [
        "Paris",
        "Lyon",
        "Marseille",
        "Toulouse",
        "Nice",
        "Nantes",
        "Strasbourg",
        "Montpellier",
        "Bordeaux",
        "Lille",
        "Rennes",
        "Reims",
        "Grenoble",
        "Dijon",
        "Angers",
        "Brest",
        "Tours",
        "Amiens",
        "Limoges",
        "Metz",
        "Besançon",
        "Orléans",
        "Rouen",
        "Caen",
        "Nancy",
        "Genève",
        "Bruxelles",
        "Montréal",
        "Québec",
        "Lausanne",
    ],
    "pt": [
        "São Paulo",
        "Rio de Janeiro",
        "Salvador",
        "Fortaleza",
        "Recife",
        "Curitiba",
        "Manaus",
        "Belém",
        "Goiânia",
        "Campinas",
        "Natal",
        "Maceió",
        "Teresina",
        "João Pessoa",
        "Santos",
        "Londrina",
        "Florianópolis",
        "Vitória",
        "Cuiabá",
        "Lisboa",
        "Porto",
        "Coimbra",
        "Braga",
        "Évora",
        "Faro",
        "Aveiro",
        "Porto Alegre",
        "Brasília",
        "Ouro Preto",
        "Petrópolis",
    ],
    "it": [
        "Roma",
        "Milano",
        "Napoli",
        "Torino",
        "Palermo",
        "Genova",
        "Bologna",
        "Firenze",
        "Bari",
        "Catania",
        "Venezia",
        "Verona",
        "Messina",
        "Padova",
        "Trieste",
        "Brescia",
        "Parma",
        "Modena",
        "Perugia",
        "Ravenna",
        "Cagliari",
        "Siena",
        "Pisa",
        "Lucca",
    ],
}
_STREETS = {
    "en": ("{last} Street", "{last} Road", "{last} Avenue", "{last} Lane", "Old {city} Road"),
    "es": ("la calle {last}", "la avenida {last}", "la plaza {last}", "la calle {first} {last}"),
    "fr": ("la rue {first} {last}", "l'avenue {first} {last}", "la place {first} {last}"),
    "pt": ("a rua {first} {last}", "a avenida {last}", "a praça {last}", "a rua {last}"),
    "de": ("{last}straße", "{last}weg", "{last}platz", "{last}gasse"),
    "it": ("via {last}", "via {first} {last}", "piazza {last}", "corso {last}"),
}
_COMPANIES = {
    "en": (
        "{last} and {last}",
        "{last} Brothers",
        "{city} Water",
        "{last} Travel",
        "the {city} Clinic",
        "{last} Motors",
    ),
    "es": ("Viajes {last}", "Talleres {last}", "la clínica {last}", "Transportes {last}", "{last} y {last}"),
    "fr": ("Garage {last}", "Voyages {last}", "la clinique {last}", "{last} et {last}", "Transports {last}"),
    "pt": ("Viagens {last}", "Oficina {last}", "a clínica {last}", "Transportes {last}", "{last} e {last}"),
    "de": ("Autohaus {last}", "Praxis {last}", "Bäckerei {last}", "{last} und {last}", "Reisebüro {last}"),
    "it": ("Viaggi {last}", "Officina {last}", "la clinica {last}", "Trasporti {last}", "{last} e {last}"),
}


def name_slots(wheel: Path, language: str) -> dict[str, Any]:
    """Slots first, last, full, city, street and company for the templates of a language.

    Args:
        wheel: the wheel of Faker; Python imports from it directly.
    """
    sys.path.insert(0, str(wheel))
    try:
        first, last, cities = _lists(language)
    finally:
        sys.path.remove(str(wheel))
    return slots_of(first, last, cities, language)


def slots_of(first: list[str], last: list[str], cities: list[str], language: str) -> dict[str, Any]:
    """The slots for given lists of names."""

    def full(rng: random.Random) -> str:
        return f"{rng.choice(first)} {rng.choice(last)}"

    return {
        "first": first,
        "last": last,
        "city": cities,
        "full": full,
        "street": list(_STREETS[language]),
        "company": list(_COMPANIES[language]),
    }


def _lists(language: str) -> tuple[list[str], list[str], list[str]]:
    person, address = _LOCALES[language]
    people = importlib.import_module(f"faker.providers.person.{person}").Provider
    places = importlib.import_module(f"faker.providers.address.{address}").Provider
    first = _names(people, lambda name: name.startswith("first_name") and "nonbinary" not in name)
    last = _names(people, lambda name: name.startswith("last_name"))
    cities = _CITIES.get(language) or _names(places, lambda name: name in _CITY_LISTS)
    return first, last, cities


def _names(provider: type, wanted: Callable[[str], bool]) -> list[str]:
    """Plain names of all wanted lists of a provider, sorted, each once."""
    found = set()
    for attribute in dir(provider):
        value = getattr(provider, attribute)
        if wanted(attribute) and not callable(value):
            found |= {name for name in value if isinstance(name, str)}
    return sorted(name for name in found if name.replace("-", "").replace(" ", "").replace("'", "").isalpha())

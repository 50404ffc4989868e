"""Compounds that name one thing, which their words apart do not: kept together as one concept.

A list of what pictures show: food, clothing, furniture, vehicles, animals, places, sports, occupations. Combinations
that are no more than the sum of their words (`old man`, `white dog`) are left out on purpose.
"""

from __future__ import annotations

ENGLISH = frozenset(
    entry.strip()
    for entry in """
hot dog, ice cream, french fries, fast food, peanut butter, corn dog, egg roll, spring roll, cotton candy, maple
syrup, olive oil, soy sauce, tomato sauce, cream cheese, cottage cheese, sweet potato, mashed potato, baked potato,
green bean, brussels sprout, bell pepper, chili pepper, black pepper, red wine, white wine, orange juice, apple pie,
cheese cake, birthday cake, wedding cake, cup cake, pancake mix, fried rice, fried chicken, fried egg, sea food,
junk food, soft drink, energy drink, coffee bean, tea bag, tank top, t shirt, polo shirt, dress shirt, bow tie, high
heel, flip flop, blue jean, hard hat, baseball cap, cowboy hat, top hat, straw hat, bucket hat, cowboy boot, rain
coat, lab coat, life jacket, life vest, leather jacket, bathing suit, swim suit, wet suit, dress shoe, tennis shoe,
running shoe, ballet shoe, wedding dress, evening gown, wedding ring, swim trunk, hand bag, shoulder bag, sleeping
bag, shopping bag, plastic bag, paper bag, garbage bag, tote bag, fanny pack, back pack, contact lens, safety vest,
living room, dining room, waiting room, bath room, bed room, locker room, hotel room, class room, dressing room,
conference room, coffee table, dining table, pool table, picnic table, operating table, night stand, book shelf,
book case, rocking chair, lawn chair, high chair, beach chair, bean bag, arm chair, folding chair, electric chair,
coffee maker, coffee machine, coffee mug, coffee cup, coffee shop, washing machine, sewing machine, vending machine,
slot machine, ice machine, vacuum cleaner, microwave oven, hair dryer, hair brush, tooth brush, tooth paste, shower
curtain, shower head, toilet paper, toilet seat, paper towel, trash can, garbage can, trash bin, watering can, tin
can, wine glass, champagne glass, wine bottle, water bottle, beer bottle, cutting board, frying pan, ironing board,
light bulb, light switch, power outlet, remote control, cell phone, mobile phone, smart phone, pay phone, phone
booth, video game, video camera, web cam, computer mouse, computer monitor, laptop computer, game controller, key
board, hard drive, teddy bear, stuffed animal, rubber duck, rocking horse, jigsaw puzzle, playing card, greeting
card, credit card, business card, christmas tree, christmas card, fairy light, palm tree, pine tree, cherry tree,
apple tree, oak tree, tree trunk, tree house, fire hydrant, fire truck, fire engine, fire extinguisher, fire
fighter, fire place, fire alarm, fire pit, fire escape, fire station, traffic light, traffic jam, traffic sign,
traffic cone, street light, street lamp, street sign, stop sign, stop light, lamp post, parking lot, parking meter,
parking garage, parking space, gas station, bus stop, bus station, train station, train track, railway track,
railroad track, railway station, subway station, subway train, police station, police officer, police car, police
man, police department, post office, mail box, bus driver, taxi driver, truck driver, pick up truck, pickup truck,
dump truck, garbage truck, tow truck, ice cream truck, food truck, semi truck, school bus, tour bus, double decker
bus, sports car, race car, racing car, golf cart, shopping cart, shopping mall, shopping center, shopping centre,
steam engine, steam train, dirt bike, mountain bike, motor bike, motor cycle, motor boat, speed boat, sail boat,
house boat, row boat, fishing boat, fishing rod, fishing pole, cruise ship, pirate ship, container ship, aircraft
carrier, fighter jet, jet ski, jet plane, hot air balloon, air balloon, air plane, cable car, roller coaster, merry
go round, ferris wheel, bumper car, steering wheel, seat belt, license plate, number plate, polar bear, black bear,
grizzly bear, panda bear, brown bear, golden retriever, german shepherd, border collie, bull dog, guinea pig, sea
lion, sea gull, sea horse, sea turtle, sea shell, killer whale, humpback whale, great white shark, jelly fish, gold
fish, star fish, clown fish, bald eagle, humming bird, guide dog, sheep dog, sled dog, mountain goat, farm animal,
wild animal, swimming pool, diving board, water slide, water fall, water park, water polo, water ski, water skiing,
water tower, theme park, amusement park, skate park, national park, play ground, camp fire, camp site, camping tent,
tennis court, tennis racket, tennis ball, tennis player, tennis match, basketball court, basketball hoop, basketball
player, basketball game, soccer ball, soccer player, soccer field, soccer game, football player, football field,
football game, football team, football match, football helmet, baseball bat, baseball player, baseball game,
baseball field, baseball glove, baseball team, baseball diamond, hockey player, hockey stick, ice hockey, field
hockey, hockey game, ice skate, ice skating, ice rink, ice cube, roller skate, roller blade, golf course, golf club,
golf ball, cricket player, rugby player, volleyball player, volleyball net, volleyball game, bowling ball, bowling
alley, punching bag, boxing glove, boxing ring, martial art, hula hoop, jump rope, trampoline park, skateboard ramp,
half pipe, ski slope, ski lift, ski pole, ski resort, ski jump, ski mask, snow board, snow man, snow ball, snow
shoe, snow flake, snow storm, surf board, boogie board, wake board, paddle board, tight rope, rock climbing, rock
climber, rock star, rock band, rock concert, mountain biker, mountain climber, horse race, horse riding, horseback
riding, race track, starting line, finish line, finishing line, crossing guard, cross walk, zebra crossing,
pedestrian crossing, side walk, high school, elementary school, primary school, middle school, school child, swing
set, baby stroller, baby carriage, wheel chair, hospital bed, bunk bed, air conditioner, ceiling fan, ceiling light,
picture frame, photo frame, wind mill, wind turbine, wind surfing, solar panel, power line, power plant, light
house, sand castle, sand box, sand dune, sand storm, beach ball, beach towel, beach umbrella, hot tub, bath tub, hot
spring, oil painting, water color, water colour, comic book, coloring book, cook book, note book, text book, story
book, check book, news paper, wall paper, wrapping paper, toilet roll, drum set, drum kit, drum stick, electric
guitar, bass guitar, acoustic guitar, guitar player, grand piano, musical instrument, brass band, marching band,
music video, music festival, film festival, fashion show, fashion week, talk show, talent show, red carpet, press
conference, opening ceremony, closing ceremony, award ceremony, world cup, gold medal, silver medal, bronze medal,
super market, flower bed, flower pot, flower girl, house plant, pot plant, potted plant, bird house, bird cage, dog
house, dog collar, dog leash, cat food, dog food, pet store, grocery store, department store, book store,
convenience store, liquor store, fruit stand, hot chocolate, food stand, food court, flea market, farmers market,
farmer market, street market, market place, city hall, town hall, court house, white house, opera house, concert
hall, movie theater, movie theatre, movie poster, movie star, train car, box car, santa claus, santa hat, stained
glass, magnifying glass, looking glass, hour glass, sun glass, eye shadow, nail polish, make up, hair style, hair
cut, pony tail, dread lock, blond hair, finger nail, bare foot, belly button, middle finger, index finger, ring
finger, thumbs up, peace sign, group photo, self portrait, slow motion, time lapse, stock photo, file photo, black
hole, solar system, milky way, northern lights, full moon, new moon, shooting star, sun rise, sun set, sun flower,
best friend, boy friend, girl friend, grand mother, grand father, business man, business woman, construction worker,
construction site, construction vehicle, office building, apartment building, sky scraper, fast forward, head coach,
prime minister, vice president, real estate, new year, merry christmas, happy birthday, valentine day, first lady,
armed forces, air force, barbed wire, chain link fence, picket fence, brick wall, stone wall, climbing wall, rock
wall, door knob, door way, door bell, front door, front yard, back yard, back ground, fore ground, garage door,
window sill, window pane, fence post, sign post, flag pole, telephone pole, telephone booth, telephone line, utility
pole, electric pole, satellite dish, bubble bath, bubble gum, chewing gum, cardboard box, lunch box, tool box,
jewelry box, gift box, litter box, cereal box, pizza box, sauce pan, rolling pin, measuring cup, paper plate, paper
cup, place mat, table cloth, dish washer, dish towel, tea pot, tea cup, tea kettle, salad dressing, salad bowl,
chocolate chip, chocolate cake, carrot cake, potato chip, potato salad, fruit salad, green salad, chicken wing,
chicken breast, ground beef, pork chop, ice water, tap water, hard boiled egg, wedding party, birthday party, tea
party, bachelor party, cocktail party, christmas party, halloween costume, face paint, face mask, gas mask,
protective gear, safety gear, knee pad, elbow pad, life guard, body board, body builder, human being, sports team,
sports event, sporting event, training session, traffic control, remote controller
""".replace("\n", " ").split(",")
    if entry.strip()
)
"""Singular, in lower case, words apart by one space."""
LONGEST = max(len(entry.split()) for entry in ENGLISH)
